"""What the agent needs of the world.  `runtime` asks through these; `adapters` answer.

Adapters translate whatever their library raises into the errors of `core.errors` and let nothing
else out.  Each port has one contract suite in tests/contract, run over every implementation.
"""

from agent.ports.device import Clock, Faces, Machine, Memory, Questions
from agent.ports.engine import (
    Answer,
    Array,
    Engine,
    GoldenResult,
    Session,
    TensorSpec,
    WorkerLostError,
)
from agent.ports.journal import Journal, Notes, Signer, Vault
from agent.ports.link import Link, Login, Message
from agent.ports.outbox import Carried, Entry, Gap, Outbox, Record, Trouble
from agent.ports.ring import Ring, Scored
from agent.ports.sensors import Burst, Source
from agent.ports.store import Fetcher, Partial, Store

__all__ = [
    "Answer",
    "Array",
    "Burst",
    "Carried",
    "Clock",
    "Engine",
    "Entry",
    "Faces",
    "Fetcher",
    "Gap",
    "GoldenResult",
    "Journal",
    "Link",
    "Login",
    "Machine",
    "Memory",
    "Message",
    "Notes",
    "Outbox",
    "Partial",
    "Questions",
    "Record",
    "Ring",
    "Scored",
    "Session",
    "Signer",
    "Source",
    "Store",
    "TensorSpec",
    "Trouble",
    "Vault",
    "WorkerLostError",
]
