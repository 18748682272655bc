"""The n-grams of what is being generated, so that none comes twice.

In: the tokens of a sequence, one after the other. Out: the tokens that may not follow. Knows nothing of models or scores.
"""

from __future__ import annotations


class NGrams:
    """The n-grams of one sequence, kept so that the tokens which would repeat one are found without a search.

    ``size`` 0 keeps and bans nothing.
    """

    __slots__ = ("_followers", "_recent", "size")

    def __init__(self, size: int, first_token: int) -> None:
        self.size = size
        self._recent: tuple[int, ...] = ()
        self._followers: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.append(first_token)

    def banned(self) -> tuple[int, ...]:
        """The tokens that would complete an n-gram which the sequence holds already."""
        return self._followers.get(self._recent, ()) if self.size else ()

    def append(self, token: int) -> None:
        """Take one more token into the sequence."""
        if not self.size:
            return
        if len(self._recent) == self.size - 1:
            self._followers[self._recent] = (*self._followers.get(self._recent, ()), token)
        self._recent = (*self._recent, token)[-(self.size - 1) :] if self.size > 1 else ()

    def copy(self) -> NGrams:
        """The same sequence, to be continued apart from this one."""
        twin = object.__new__(NGrams)
        twin.size, twin._recent = self.size, self._recent
        twin._followers = dict(self._followers)
        return twin


def continued(old: list[NGrams], parents: list[int], tokens: list[int]) -> list[NGrams]:
    """The n-grams of each new row; a parent with several children is copied for all but the last of them."""
    remaining = [parents.count(row) for row in range(len(old))]
    rows = []
    for parent, token in zip(parents, tokens, strict=True):
        remaining[parent] -= 1
        ngrams = old[parent].copy() if remaining[parent] and old[parent].size else old[parent]
        ngrams.append(token)
        rows.append(ngrams)
    return rows
