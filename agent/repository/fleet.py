"""What an operator wants of devices, and what devices say of themselves.

Pure: documents in, documents and verdicts out.  The talking is `conversation`'s, the showing is
`agent.commands.fleet`'s.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.core.errors import RefusedError
from agent.core.strict import read_object
from agent.core.topics import device_of
from agent.core.wire import DesiredModel, pack_metadata, parse_desired

REPORT_BYTES_MAX = 4 * 2**20
GRACE_S = 5.0  # from the device's seeing a wish to its taking it up


# ---- what is wanted ------------------------------------------------------------------------------


def amend(
    previous: bytes | None,
    name: str,
    wish: DesiredModel,
    *,
    metadata: Mapping[str, bytes],
    above: int = 0,
) -> tuple[int, bytes]:
    """The desired document `previous` (None: none yet) with one wish changed, and its revision.

    The revision is higher than that of `previous` and than `above`.  What else the document says
    stays, members unknown to us too; a model keeps its stream if `wish` names none.

    Raises:
        RefusedError: `previous` is malformed, or the result would be refused by a device.
    """
    document: dict[str, Any] = {"schema": 1, "revision": 0, "models": {}}
    if previous is not None:
        try:
            parse_desired(previous)
        except RefusedError as error:
            raise RefusedError(
                f"the desired document on the broker is malformed ({error});"
                " --fresh starts a new one",
                409,
            ) from error
        document = read_object(previous, "desired", bytes_max=len(previous))
    models = dict(document["models"])
    entry: dict[str, Any] = {"release": wish.release}
    if stream := wish.stream or models.get(name, {}).get("stream"):
        entry["stream"] = stream
    if wish.rollout:
        entry["rollout"] = wish.rollout
    revision = max(document["revision"], above) + 1
    document |= {"revision": revision, "models": models | {name: entry}}
    document.pop("metadata", None)
    if metadata:
        document["metadata"] = pack_metadata(metadata)
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    parse_desired(body)
    return revision, body


def bars_from(settings: list[str]) -> dict[str, dict[str, Any]]:
    """`["shadow.windows=50", "probation.time=1m"]` as overrides of a rollout.

    Raises:
        RefusedError: one of them is not BAR.MEMBER=VALUE.
    """
    overrides: dict[str, dict[str, Any]] = {}
    for setting in settings:
        where, equals, text = setting.partition("=")
        bar, dot, member = where.strip().partition(".")
        if not (equals and dot and bar and member and text.strip()):
            raise RefusedError(f"{setting!r} is no bar; write one as shadow.windows=50")
        overrides.setdefault(bar, {})[member] = value_of(text.strip())
    return overrides


def value_of(text: str) -> Any:
    """A number, true, false, null, list or table if `text` is JSON for one; else the text."""
    try:
        return read_object(f'{{"v":{text}}}'.encode(), "value", bytes_max=REPORT_BYTES_MAX)["v"]
    except (RefusedError, KeyError):
        return text


# ---- what is said --------------------------------------------------------------------------------


@dataclass(slots=True)
class Device:
    """One device as its retained documents tell it; `trouble` if they cannot be read."""

    name: str
    status: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""

    @property
    def online(self) -> bool | None:
        """Whether its link stands; None if it never said."""
        said = self.status.get("online")
        return said if isinstance(said, bool) else None

    @property
    def revision(self) -> int:
        """Of the desired document it has in force; 0 if it does not say."""
        return number(self.report.get("revision"))

    def model(self, name: str) -> Mapping[str, Any]:
        """What it says of one model; empty if nothing."""
        return part(part(self.report, "models"), name)


def fleet_of(documents: Mapping[str, bytes], root: str) -> dict[str, Device]:
    """The devices whose `reported` and `status` are among `documents`, by name."""
    fleet: dict[str, Device] = {}
    for topic in sorted(documents):
        take(fleet, topic, documents[topic], root)
    return fleet


def take(fleet: dict[str, Device], topic: str, payload: bytes, root: str) -> Device | None:
    """Put one document into the fleet; the device it is of, or None if it is something else."""
    name, kind = device_of(topic, root), topic.rpartition("/")[2]
    if not name or kind not in ("reported", "status") or topic != f"{root}/{name}/{kind}":
        return None
    device = fleet.setdefault(name, Device(name))
    try:
        document = read_object(payload, f"{kind} of {name}", bytes_max=REPORT_BYTES_MAX)
    except RefusedError as error:
        device.trouble = str(error)
        return device
    if kind == "status":
        device.status = document
    else:
        device.report, device.trouble = document, ""
    return device


def part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under `key`; empty if there is none."""
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> int:
    """`value` if it is a whole number, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


# ---- what became of it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a wish stands on one device: `committed` is None until that is settled."""

    phase: str
    share: float = 0.0  # of the phase, 0 to 1
    why: str = ""
    committed: bool | None = None
    instead: str = ""  # which newer wish has taken its place, in words


@dataclass(frozen=True, slots=True)
class Newer:
    """A wish that takes the place of the one followed.  `revision` is None where the device does
    not report of which document it is.
    """

    revision: int | None
    words: str


class Follower:
    """Watches one device's reports until its wish is committed, or will not be.

    Args:
        revision: of the wish; None where it is a group's, whose revision a device does not report
            if it has a wish of its own.
        before: what the device reported last before the wish was published; an old refusal in it
            is not taken for an answer.
    """

    def __init__(
        self, name: str, release: int, revision: int | None, before: Mapping[str, Any]
    ) -> None:
        self._name = name
        self._release = release
        self._revision = revision
        self._old_refusal = _refusal(before)
        model = part(part(before, "models"), name)
        self._old_why = model.get("why") or ""
        self._old_receipt = part(model, "receipt").get("number")
        self._newer: Newer | None = None
        self._ours = re.compile(rf"\b{re.escape(name)}:{release}(?!\d)")
        self._started: float | None = None
        self._tried = False
        self._seen: float | None = None

    def replaced(self, newer: Newer | None) -> None:
        """What is wished for instead, as of now; None if this wish is the newest still."""
        self._newer = newer

    def see(self, device: Device, now: float) -> Progress:
        """Where the wish stands by `device`'s last report; `now` in monotonic seconds.

        A newer wish ends it once the device has turned to that one: a version that was being
        promoted may be committed first.
        """
        here, newer = self._see(device, now), self._newer
        if newer is None:
            return here
        is_taken = newer.revision is None or device.revision >= newer.revision
        candidate = number(part(device.model(self._name), "candidate").get("release"))
        has_ended = here.committed or self._ours.search(here.why)
        if is_taken and candidate != self._release and not has_ended:
            here = Progress("replaced", why=newer.words, committed=False)
        return replace(here, instead=newer.words)

    def _see(self, device: Device, now: float) -> Progress:
        if self._started is None:
            self._started = now
        report, model = device.report, device.model(self._name)
        refusal = _refusal(report)
        is_old = refusal == self._old_refusal and now - self._started < GRACE_S
        if refusal is not None and not is_old and not self._tried:
            return Progress("refused", why=refusal[1], committed=False)
        if self._revision is not None and device.revision < self._revision:
            return Progress("waiting for the device" if report else "waiting for a first report")
        return self._judge(model, now)

    def _judge(self, model: Mapping[str, Any], now: float) -> Progress:
        phase, state = str(model.get("phase", "")), str(model.get("state", ""))
        why = str(model.get("why") or "")
        here = Progress(phase or "taken note of", _share(model.get("progress")), why)
        candidate, active, known_good = (
            number(part(model, which).get("release"))
            for which in ("candidate", "active", "known_good")
        )
        if candidate == self._release:
            self._tried = True
        elif self._tried and candidate and known_good == self._release:
            return Progress("committed", 1.0, committed=True)  # and the next one is on its way
        if self._seen is None:
            self._seen = now
        if model and phase != "steady":
            return here
        if active == self._release and (state == "Healthy" or known_good == self._release):
            return Progress("committed", 1.0, why, committed=True)
        waited = now - self._seen > GRACE_S
        is_news = self._tried or waited or why != self._old_why
        ours = self._tried or self._ours.search(why)
        if why and is_news and (ours or state in ("Failed", "Unschedulable")):
            return Progress(self._ending(model), 0.0, why, committed=False)
        if self._revision is not None and waited and state != "Transitioning":
            return Progress(
                "not taken up", 0.0, why or "the device does not say why", committed=False
            )
        return here

    def _ending(self, model: Mapping[str, Any]) -> str:
        state, receipt = model.get("state"), part(model, "receipt")
        if state in ("Unschedulable", "Failed"):
            return str(state).lower()
        left = number(part(receipt, "from").get("release"))
        is_new = receipt.get("number") != self._old_receipt
        was_live = receipt.get("kind") == "rollback" and left == self._release and is_new
        return "rolled back" if was_live else "refused"


def _refusal(report: Mapping[str, Any]) -> tuple[int, str] | None:
    code = number(report.get("code"))
    if code < 400:
        return None
    return code, str(report.get("why") or f"refused with code {code}")


def _share(value: object) -> float:
    ok = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(float(value), 0.0), 1.0) if ok else 0.0  # type: ignore[arg-type]
