"""Files that grow, as sources of readings."""

from agent.adapters.tail.source import TailSource

__all__ = ["TailSource"]
