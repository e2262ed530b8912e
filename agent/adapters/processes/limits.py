"""Bounds of every worker."""

from dataclasses import dataclass, field

import psutil

from agent.config import Engine

MEMORY_BYTES_LEAST = 1 << 30


def half_the_memory() -> int:
    """Private memory of a worker whose manifest does not say how much it takes."""
    return max(MEMORY_BYTES_LEAST, psutil.virtual_memory().total // 2)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every worker; see `agent.config.Engine` for those that users set."""

    start_s: float = 30.0
    load_s: float = 600.0
    run_s: float = 10.0
    memory_bytes: int = field(default_factory=half_the_memory)
    arena_bytes: int = 512 * 2**20  # tensors of one worker in shared memory
    load_cpu_s: float = 120.0  # a thread; accelerators compile for longer, and are left alone
    domains: tuple[str, ...] = ()  # operator sets that are let pass besides the usual ones

    @classmethod
    def of(cls, engine: Engine) -> "Limits":
        """As the user set them."""
        return cls(engine.start_s_max, engine.load_s_max, engine.run_s_max, domains=engine.domains)
