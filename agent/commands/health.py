"""`edge-agent health`: asks the running agent whether it is ready.  For container health checks.

It is started every few seconds on devices with little to spare, so it uses the standard library
only and imports nothing of the agent: settings are looked up, not validated.
"""

import http.client
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 4.0
LINE_BYTES_MAX = 4096
BIND = "127.0.0.1:8080"
CONFIG_PATHS = ("agent.toml", "/etc/edge-agent/agent.toml")
ANYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- asked on the loopback instead

USAGE = """\
usage: edge-agent health [--url URL] [--config FILE]

Asks the running agent's /readyz, prints its one line, and exits 0 if it is ready, else 1.

  --url URL      where it answers [default: http.bind of the settings, else http://127.0.0.1:8080]
  --config FILE  its settings [default: EDGE_AGENT_CONFIG, agent.toml, /etc/edge-agent/agent.toml]

example: edge-agent health --url http://127.0.0.1:8080
"""


def health(url: str | None = None, config: str | None = None) -> int:
    """Print the agent's one line; 0 if it is ready, 1 if it is not or there is no asking it."""
    try:
        host, port = address(url, config, os.environ)
    except ValueError as error:
        print(f"edge-agent health: {error}", file=sys.stderr)  # noqa: T201 -- a command's answer
        return 1
    ready, line = ask(host, port)
    print(line)  # noqa: T201 -- a command's answer
    return 0 if ready else 1


def ask(host: str, port: int) -> tuple[bool, str]:
    """Whether the agent at `host` and `port` is ready, and its line or why there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        line = answer.read(LINE_BYTES_MAX).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return False, f"no agent answers at {host}:{port} ({why}); is it running?"
    finally:
        connection.close()
    return answer.status == http.client.OK, line or f"{host}:{port} answered {answer.status}"


def address(url: str | None, config: str | None, environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of the agent: from `url`, else the environment, else the settings' `http.bind`.

    Raises:
        ValueError: what was found is no address, or the settings cannot be read.
    """
    if url:
        found = re.fullmatch(
            r"(?:http://)?(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+)(?::(\d+))?(?:/.*)?", url
        )
        default = "80" if url.startswith("http://") else "8080"
    else:
        url = environ.get("EDGE_AGENT__HTTP__BIND") or _bind(config, environ)
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):(\d+)", url)
        default = ""
    if found is None or not 0 < int(found[2] or default) < 65536:
        raise ValueError(f"{url!r} is no address; write http://127.0.0.1:8080")
    host = ANYWHERE.get(found[1], found[1])
    return host.strip("[]"), int(found[2] or default)


def _bind(config: str | None, environ: Mapping[str, str]) -> str:
    named = config or environ.get("EDGE_AGENT_CONFIG")
    path = Path(named) if named else next((p for p in map(Path, CONFIG_PATHS) if p.is_file()), None)
    if path is None:
        return BIND
    import tomllib  # only where there is a file to read

    try:
        section = tomllib.loads(path.read_text(encoding="utf-8")).get("http", {})
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    bind = section.get("bind", BIND) if isinstance(section, dict) else section
    return str(bind)


def main(arguments: Sequence[str]) -> int:
    """The command without a command-line library, which would take longer than the question."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in ("-h", "--help"):
            print(USAGE, end="")  # noqa: T201 -- a command's answer
            return 0
        if name not in ("--url", "--config") or not (equals or rest):
            print(USAGE, end="", file=sys.stderr)  # noqa: T201 -- a command's answer
            return 2
        options[name] = value if equals else rest.pop(0)
    return health(options.get("--url"), options.get("--config"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
