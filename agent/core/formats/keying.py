"""Which sensor a reading is of: out of its topic or a field, as a number of the stream's `Keys`."""

import re
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from agent.core.blocks import Keys
from agent.core.formats.plan import RawKey

KEY_CHARS_MAX = 256
NO_ROOM = -1  # as `Keys.index` says it
NO_KEY = -2
_LEVEL = re.compile(r"\{(\d+)\}")


class TopicKey:
    """A key composed of topic levels, such as `{1}-{3}`."""

    def __init__(self, template: str) -> None:
        # text, level, text, level, …, text
        self._parts = _LEVEL.split(template)

    @staticmethod
    def is_template(key: str) -> bool:
        """Whether `key` speaks of the topic and not of a field."""
        return _LEVEL.search(key) is not None

    def of(self, topic: bytes) -> str | None:
        """The key in `topic`; None if it has too few levels or is no UTF-8."""
        try:
            levels = topic.decode().split("/")
        except UnicodeDecodeError:
            return None
        try:
            return "".join(
                levels[int(part)] if i % 2 else part for i, part in enumerate(self._parts)
            )
        except IndexError:
            return None


class Numbering:
    """Numbers for raw keys, remembered: most readings are of a sensor that was seen before."""

    def __init__(self, keys: Keys, keys_max: int, template: TopicKey | None) -> None:
        self._keys = keys
        self._seen_max = keys_max + 1024  # several spellings (7 and "7", topics) may name one key
        self._template = template
        self._seen: dict[Hashable, int] = {}

    def number(self, raw: Sequence[bytes | RawKey]) -> NDArray[np.int32]:
        """int32 [n]: a key's number, NO_KEY or NO_ROOM for each topic or raw key."""
        numbers = list(map(self._seen.get, raw))
        if None in numbers:
            numbers = [self._number(one) for one in raw]
        return np.array(numbers, np.int32)

    def _number(self, raw: bytes | RawKey) -> int:
        found = self._seen.get(raw)
        if found is None:
            if len(self._seen) >= self._seen_max:
                self._seen.clear()
            found = self._seen[raw] = self._index(raw)
        return found

    def _index(self, raw: bytes | RawKey) -> int:
        key = self._template.of(raw) if self._template and isinstance(raw, bytes) else _text(raw)
        if not key or len(key) > KEY_CHARS_MAX:
            return NO_KEY
        return self._keys.index(key)


def _text(raw: bytes | RawKey) -> str | None:
    """A field's key as text that any consumer can read."""
    if raw is None or isinstance(raw, bytes):
        return None
    try:
        text = str(raw)
        text.encode()
    except ValueError:  # a number of thousands of digits, or half of a surrogate pair
        return None
    return text
