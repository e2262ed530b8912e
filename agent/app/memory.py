"""What the agent remembers across restarts: the one database, and beside it the vault."""

import contextlib
import sqlite3
from contextlib import ExitStack
from pathlib import Path

import agent
from agent.adapters.files import FileVault
from agent.adapters.sqlite.ageing import Ageing
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.adapters.sqlite.packing import Packing
from agent.config import Config
from agent.core import scores
from agent.core.errors import UnavailableError
from agent.ports import Clock, Journal, Vault
from agent.runtime.accounts import Account
from agent.runtime.remembering import Remembering
from agent.runtime.shares import Shares

CLOCK_AHEAD_S_MAX = 15 * 365 * 86400.0  # that a device may run on one release of this agent


def opened(config: Config, clock: Clock, rooms: ExitStack) -> tuple[Journal, SqliteOutbox, Vault]:
    """Journal, outbox and vault; what was lost of one is filled from the other.

    Raises:
        RefusedError: another agent has them.
        UnavailableError: the disk said no.
    """
    folder = Path(config.store.dir)
    vault = FileVault(folder / "vault")
    gather_s = config.store.commit_ms / 1000.0
    database = Database(folder / "agent.db", gather_s=gather_s, check=check)
    rooms.callback(database.close)
    before = _epoch(vault)
    outbox = SqliteOutbox(
        database,
        int(config.store.outbox_mb * 2**20),
        epoch_least=before + 1,
        ageing=Ageing(config.store.outbox_ttl, clock.monotonic, lambda: _believed(clock.wall())),
        packing=Packing(scores.join),
    )
    rooms.callback(outbox.close)
    if before != outbox.epoch():
        with contextlib.suppress(UnavailableError):  # a full disk: the next start tries again
            vault.keep("epoch", str(outbox.epoch()).encode())
    return Remembering(SqliteJournal(database), vault), outbox, vault


def check(connection: sqlite3.Connection) -> None:
    """Raises ValueError where an account cannot be read: then numbers might be given twice."""
    for (raw,) in connection.execute("SELECT body FROM account"):
        try:
            Account.restored(raw, redelivered=True)
            Shares.restored(raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"an account is damaged: {error!r}"
            raise ValueError(msg) from error


def _believed(wall: float) -> float | None:
    """`wall` if a clock may say so: not before this release was built, nor absurdly long after."""
    return wall if agent.__built__ <= wall <= agent.__built__ + CLOCK_AHEAD_S_MAX else None


def _epoch(vault: Vault) -> int:
    """Of the last store this device had; 0 if this is its first, or nobody can tell."""
    try:
        raw = vault.recall("epoch") or b"0"
    except UnavailableError:
        return 0
    return int(raw) if raw.isdigit() else 0
