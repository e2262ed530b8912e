"""Good models with one seeded mistake in each: of the bytes, or of what they say.

Mistakes in the bytes are those of disks, cables and careless tools.  Mistakes in what they say are
made through the ONNX library, so that the file stays well-formed and gets as far as it can.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx

from tests.world import zoo
from tests.world.pack import record, reference

SAMPLES = 32  # golden samples of the good ones: enough to have every weight matter
GOOD: tuple[Callable[..., Path], ...] = (
    *(zoo.mlp, zoo.cnn, zoo.classifier, zoo.two_inputs, zoo.columns, zoo.external),
)
_NUMBERS = (0, 1, -1, 2, 7, 127, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-40, 1e38, float("inf"), float("nan"))


def good(kind: int, folder: Path, **members: Any) -> Path:
    """The good model number `kind`, with more golden samples than usual."""
    maker = GOOD[kind % len(GOOD)]
    maker(folder, **members)
    feed = fresh(folder, SAMPLES, seed=kind)
    record(folder, feed, reference(folder / "model.onnx", feed))
    return folder


def fresh(folder: Path, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs that a package has not seen, in the shapes of its golden ones."""
    rng = np.random.default_rng(seed)
    with np.load(folder / "golden.npz") as golden:
        shapes = {k[3:]: golden[k].shape[1:] for k in golden.files if k.startswith("in:")}
    return {k: rng.normal(size=(rows, *s)).astype(np.float32) for k, s in shapes.items()}


def mutant(seed: int, good_one: Path, folder: Path) -> str:
    """A copy of `good_one` in `folder` with one mistake in its model; which, in words."""
    shutil.copytree(good_one, folder)
    path, random = folder / "model.onnx", Random(seed)
    body = path.read_bytes()
    kind, changed = body, body
    while changed == body:
        make = random.choice((flipped, cut, shuffled, grown, edited, edited, edited))
        kind, changed = make.__name__, make(body, random)
    path.write_bytes(changed)
    return f"{seed}: {good_one.name} {kind}"


def flipped(body: bytes, random: Random) -> bytes:
    """Some bits the other way."""
    changed = bytearray(body)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(body: bytes, random: Random) -> bytes:
    """Its end, or a piece, is missing."""
    start = random.randrange(len(body))
    end = random.choice((len(body), min(len(body), start + random.randint(1, 64))))
    return body[:start] + body[end:]


def shuffled(body: bytes, random: Random) -> bytes:
    """A piece is there twice, or where another was."""
    start, to = random.randrange(len(body)), random.randrange(len(body))
    piece = body[start : start + random.randint(1, 256)]
    return body[:to] + piece + body[to + random.choice((0, len(piece))) :]


def grown(body: bytes, random: Random) -> bytes:
    """A count is larger than what it counts: a byte of a length, somewhere in the first part."""
    changed = bytearray(body)
    at = random.randrange(min(len(body), 400))
    changed[at : at + 1] = bytes([changed[at] | 0x80, random.randrange(1, 0x80)])
    return bytes(changed)


def edited(body: bytes, random: Random) -> bytes:
    """One member of one message says something else."""
    made = onnx.ModelProto.FromString(body)
    message, field = random.choice(_members(made))
    if not field.is_repeated:
        if field.type != field.TYPE_MESSAGE:
            setattr(message, field.name, _other(field, getattr(message, field.name), random))
        else:
            message.ClearField(field.name)
        return made.SerializeToString()
    items = getattr(message, field.name)
    at = random.randrange(len(items))
    if random.random() < 0.3:
        del items[at]
    elif field.type == field.TYPE_MESSAGE:
        items.add().CopyFrom(items[at])
    elif random.random() < 0.3:
        items.extend([items[at]] * random.choice((1, 3, 1000)))
    else:
        items[at] = _other(field, items[at], random)
    return made.SerializeToString()


def _members(message: Any) -> list[tuple[Any, Any]]:
    """Every member that is set, at every depth, with the message it is of."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                found += _members(inner)
    return found


def _other(field: Any, old: Any, random: Random) -> Any:
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return random.choice(_FLOATS)
    if field.type == field.TYPE_ENUM:
        return random.choice(field.enum_type.values).number
    if field.type == field.TYPE_STRING:
        return random.choice(("", "x", "y", "../x", old + "x", old[:-1], "Loop", "If", "Cast"))
    if field.type == field.TYPE_BYTES:
        return random.choice((b"", old[:-1], old + b"\0", old * 2, flipped(old or b"x", random)))
    number = random.choice((*_NUMBERS, old + 1, old - 1, old * 2))
    if field.type == field.TYPE_INT64:
        return max(-(2**63), min(2**63 - 1, number))
    return max(-(2**31), min(2**31 - 1, number))
