"""How each provider of the table is asked for, and which are there.

That a provider is compiled in says nothing (a GPU wheel without its driver makes a CPU session and
raises nothing); only what the made session lists, and where it placed its nodes, is true.
"""

from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Any

from agent.core.accelerators import AUTO, CPU, PROVIDERS

_SHORT = {provider.name: short for short, provider in PROVIDERS.items()}


def short(name: str) -> str:
    """Our name for onnxruntime's; its own where we have none."""
    return _SHORT.get(name, name)


def known(compiled_in: Sequence[str]) -> list[str]:
    """Those of the table that this onnxruntime has, best first."""
    return [short for short, provider in PROVIDERS.items() if provider.name in compiled_in]


def wishes(wanted: Sequence[str], compiled_in: Sequence[str]) -> Iterator[str]:
    """What to try, in order: `auto` stands for all that is compiled in; the CPU is always last."""
    seen = set()
    for wish in (*wanted, CPU):
        for one in known(compiled_in) if wish == AUTO else (wish,):
            if one not in seen:
                seen.add(one)
                yield one


def asked(
    wish: str,
    compiled_in: Sequence[str],
    *,
    threads: int = 1,
    outfit: Mapping[str, Any] | None = None,
    cache: str = "",
) -> list[tuple[str, dict[str, str]]]:
    """The `providers` argument of a session for this wish; `cache` is a folder, with slashes."""
    chain = [wish, *PROVIDERS[wish].beside]
    if wish != CPU:
        chain.append(CPU)
    return [
        (PROVIDERS[one].name, options_of(one, threads=threads, outfit=outfit or {}, cache=cache))
        for one in chain
        if PROVIDERS[one].name in compiled_in
    ]


def options_of(wish: str, *, threads: int, outfit: Mapping[str, Any], cache: str) -> dict[str, str]:
    """The options of one provider, with all places filled in."""
    row = PROVIDERS[wish]
    over: Mapping[str, str] = outfit.get("options", {}).get(wish, {})
    memory = outfit.get("memory_bytes", 0)
    places = {"threads": str(threads)}
    places |= {"cache": cache} if cache else {}
    places |= {"memory": str(memory)} if memory else {}
    options = {}
    for name, value in {**row.options, **(row.cached if cache else {}), **over}.items():
        try:
            options[name] = Template(value).substitute(places)
        except KeyError:  # there is no such place here
            continue
    return options


def satisfies(require: str, provider: str) -> bool:
    """Whether running on `provider` is what the manifest requires."""
    if require == "any":
        return True
    return provider != CPU if require == "accelerated" else provider == require
