"""The text of tokens that come one after the other, in whole characters.

In: the bytes of each token. Out: the text that they complete, and the span of each token in it. Invalid bytes become U+FFFD. Knows nothing
of vocabularies.
"""

from __future__ import annotations

import codecs


class Detokenizer:
    """Text that grows by tokens.

    Attributes:
        offsets: for each token the span (start, end) of its characters; they come with the character that they belong to. If the bytes of
            one character are split over several tokens, each of them has that character as its span, and so has a token without text
            between them. Any other token without text has an empty span.
    """

    def __init__(self) -> None:
        self.offsets: list[tuple[int, int]] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0
        self._is_inside = False  # a character has begun and is not complete
        self._num_unplaced = 0  # tokens without text inside of a character that may break off

    def add(self, piece: bytes) -> str:
        """The text that the bytes of one more token complete."""
        was_inside = self._is_inside
        if not piece:
            self._num_unplaced += 1
            if not was_inside:
                self._place((self._length, self._length))
            return ""
        if not was_inside and piece.isascii():
            text = piece.decode()
            self.offsets.append((self._length, self._length + len(text)))
            self._length += len(text)
            return text
        text = self._decoded(piece[:1])
        # A byte that neither completes nor continues the character before it is the first of the next.
        is_next = was_inside and (len(text) > 1 or (bool(text) and self._is_inside))
        start = self._length + is_next
        self._place((start, start + (not is_next)))
        text += self._decoded(piece[1:])
        self._length += len(text)
        self.offsets.append((start, self._length + self._is_inside))
        return text

    def end(self) -> str:
        """What is left after the last token: U+FFFD for a character that broke off."""
        text = self._decoder.decode(b"", final=True)
        self._length += len(text)
        self._place((self._length, self._length))
        return text

    def _decoded(self, data: bytes) -> str:
        text = self._decoder.decode(data)
        held = self._decoder.getstate()[0]
        if held[:1] == b"\xed" and held[1:] >= b"\xa0":
            # The beginning of half a surrogate pair: Python waits for the rest of it, but no byte makes it a character.
            text += self._decoder.decode(b"", final=True)
            held = b""
        self._is_inside = bool(held)
        return text

    def _place(self, span: tuple[int, int]) -> None:
        """Give the tokens without a place this one."""
        self.offsets += [span] * self._num_unplaced
        self._num_unplaced = 0
