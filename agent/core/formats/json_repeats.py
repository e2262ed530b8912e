"""Proof, for many JSON documents at once, that no wanted member stands twice in one object.

The struct decoder keeps the last of two members of one name and says nothing, so a crafted or
confused payload could show one value to us and another to somebody else.  Looking at each document
with a slower decoder would cost ten times what decoding costs; these proofs cost next to nothing.
They may fail when nothing is wrong; they never hold when something is.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from agent.core.formats.json_shapes import Table

_QUOTE, _BACKSLASH = ord('"'), b"\\"
_AFTER_VALUE = np.isin(np.arange(256), [ord(","), ord("}"), ord("]")])


class Proof:
    """Proves it for batch after batch of one stream, learning what its documents look like."""

    def __init__(self) -> None:
        self._pattern: _Pattern | None = None

    def holds(self, texts: Sequence[bytes], table: Table) -> bool:
        """Whether no wanted member stands twice in `texts`, whose rows `table` has.

        By colons: an object has at least as many as distinct members.  If the members that were
        found use them all up, none is left for a second one.
        By pattern: see `_Pattern`.
        By names: one that stands in quotes as often as it was found stands nowhere twice.
        """
        text = b"\n".join(texts)
        colons = text.count(b":")
        if table.is_whole and colons == table.members:
            return True
        found = table.found()
        spare = colons - sum(found.values())
        if spare == 0:
            return True
        if _BACKSLASH in text:  # a name, or a colon in text, may be spelled with an escape
            return False
        if spare == table.colons_in_text():
            return True
        if self._pattern is not None and self._pattern.fits(text, len(texts), sum(found.values())):
            return True
        if any(text.count(f'"{name}"'.encode()) != times for name, times in found.items()):
            return False
        self._pattern = _Pattern.of(texts[0], frozenset(name.encode() for name in found))
        return True


class _Pattern:
    """What the quoted texts in a document are, counted from its start.

    Where there are no escapes, quotes stand in pairs.  If in documents laid end to end the pairs at
    the places of unwanted members hold those very names, and those at the places of text are
    followed by what follows a value, all wanted members stand at the places left.  If as many were
    found as there are places left, none of these is taken by a second one.
    """

    def __init__(
        self, pairs: int, values: Sequence[int], others: Sequence[tuple[int, bytes]]
    ) -> None:
        """Of `pairs` of quotes, `values` hold text, and `others` the names of unwanted members."""
        self._quotes = 2 * pairs
        self._left = pairs - len(values) - len(others)
        self._value_ends = np.array([2 * i + 1 for i in values], np.intp)
        names = [name + b'"' for _, name in others]  # up to the closing quote: no longer one fits
        self._letters = np.frombuffer(b"".join(names), np.uint8)
        self._letter_of = np.repeat(
            np.array([2 * i for i, _ in others], np.intp), [len(name) for name in names]
        )
        self._letter_at = np.array([k + 1 for name in names for k in range(len(name))], np.intp)

    @classmethod
    def of(cls, document: bytes, wanted: frozenset[bytes]) -> Self:
        """The pattern of a document without escapes."""
        pieces = document.split(b'"')
        values: list[int] = []
        others: list[tuple[int, bytes]] = []
        for i, (text, after) in enumerate(zip(pieces[1::2], pieces[2::2], strict=True)):
            if after.lstrip()[:1] != b":":
                values.append(i)
            elif text not in wanted:
                others.append((i, text))
        return cls(len(pieces) // 2, values, others)

    def fits(self, text: bytes, documents: int, found: int) -> bool:
        """Whether `text` is so many documents of it, and they leave places for `found` members."""
        if found != documents * self._left or not self._quotes:
            return False
        letters = np.frombuffer(text, np.uint8)
        at = np.flatnonzero(letters == _QUOTE)
        if len(at) != documents * self._quotes:
            return False
        quotes = at.reshape(documents, self._quotes)
        if not _AFTER_VALUE[letters[quotes[:, self._value_ends] + 1]].all():
            return False
        # a crafted text may end before the name does
        places = np.minimum(quotes[:, self._letter_of] + self._letter_at, len(letters) - 1)
        return bool((letters[places] == self._letters).all())
