"""A journal whose whole content has a second copy in the vault, so that losing the database costs
neither the active versions nor what was desired: scoring goes on without a network.

The journal is written first, then the copy: at worst the copy is one step behind, and a step that
is entered again does no harm.  It has nothing of a candidate that nobody has heard yet: what is
desired begins it anew, and lists of packages come and go with the next copy, for they are there
before a version is heard.  A copy that cannot be written is no reason to stop.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import structlog

from agent.core.errors import UnavailableError
from agent.core.rollout import ABANDONABLE, Phase, Rollout
from agent.ports import Journal, Vault

COPY = "control"
COPIED = ("desired", "stream:", "package:")  # of the documents: what a start needs; by prefix
CAN_WAIT = "package:"  # for the next copy

_decode = msgspec.json.Decoder(Rollout)
logger = structlog.get_logger(__name__)


class Remembering:
    """The `Journal` port over `journal`, copied to `vault`; what is missing is filled from it."""

    def __init__(self, journal: Journal, vault: Vault) -> None:
        self._journal = journal
        self._vault = vault
        self._lock = threading.Lock()
        self._rollouts = {name: _settled(journal.load(name)) for name in journal.models()}
        self._documents: dict[str, bytes] = {}
        for name in journal.document_names():
            body = journal.load_document(name)
            if body is not None and name.startswith(COPIED):
                self._documents[name] = body
        self._take_up()

    def _take_up(self) -> None:
        try:
            raw = self._vault.recall(COPY)
        except UnavailableError as error:
            logger.warning("no second copy of the journal", why=str(error))
            return
        copy = _opened(raw)
        if copy is None:
            if self._rollouts or self._documents:
                self._copy()
            return
        rollouts = {m: r for m, r in copy[0].items() if m not in self._rollouts}
        documents = {n: body for n, body in copy[1].items() if n not in self._documents}
        for name, body in documents.items():
            self._documents[name] = body
            self._journal.save_document(name, body)
        for model, rollout in rollouts.items():
            self._rollouts[model] = rollout
            self._journal.save(model, rollout)
        if lost := [*rollouts, *documents]:
            logger.warning("the journal had lost some; filled from its second copy", names=lost)

    def load(self, model: str) -> Rollout:
        """As the port says."""
        return self._journal.load(model)

    def save(self, model: str, rollout: Rollout) -> None:
        """As the port says."""
        self._journal.save(model, rollout)
        settled = _settled(rollout)
        with self._lock:
            if self._rollouts.get(model) != settled:
                self._rollouts[model] = settled
                self._copy()

    def models(self) -> Sequence[str]:
        """As the port says."""
        return self._journal.models()

    def load_document(self, name: str) -> bytes | None:
        """As the port says."""
        return self._journal.load_document(name)

    def save_document(self, name: str, body: bytes) -> None:
        """As the port says."""
        self._journal.save_document(name, body)
        with self._lock:
            if name.startswith(COPIED) and self._documents.get(name) != body:
                self._documents[name] = body
                if not name.startswith(CAN_WAIT):
                    self._copy()

    def document_names(self) -> Sequence[str]:
        """As the port says."""
        return self._journal.document_names()

    def drop_documents(self, names: Sequence[str]) -> None:
        """As the port says."""
        self._journal.drop_documents(names)
        with self._lock:
            gone = [name for name in names if self._documents.pop(name, None) is not None]
            if any(not name.startswith(CAN_WAIT) for name in gone):
                self._copy()

    def _copy(self) -> None:
        body = {
            "rollouts": {m: msgspec.to_builtins(r) for m, r in self._rollouts.items()},
            "documents": {n: base64.b64encode(b).decode() for n, b in self._documents.items()},
        }
        raw = json.dumps(body, separators=(",", ":")).encode()
        try:
            self._vault.keep(COPY, hashlib.sha256(raw).hexdigest().encode() + b"\n" + raw)
        except UnavailableError as error:
            logger.warning("the journal has no second copy now", why=str(error))


def _settled(rollout: Rollout) -> Rollout:
    """As it would be without a candidate that nobody has heard."""
    if rollout.phase in ABANDONABLE:
        rollout = replace(rollout, phase=Phase.STEADY, candidate=None, restarts=0)
    return replace(rollout, clean=False)


def _opened(raw: bytes | None) -> tuple[dict[str, Rollout], dict[str, bytes]] | None:
    """What a copy holds; None if there is none that is whole."""
    head, _, body = (raw or b"").partition(b"\n")
    if head != hashlib.sha256(body).hexdigest().encode():
        return None
    try:
        document = json.loads(body)
        rollouts = {
            str(model): _decode.decode(json.dumps(rollout).encode())
            for model, rollout in document["rollouts"].items()
        }
        documents = {str(n): base64.b64decode(b) for n, b in document["documents"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError):
        return None  # of another version of this agent
    return rollouts, documents
