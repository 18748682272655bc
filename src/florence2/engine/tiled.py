"""One future for the answers about the tiles of a picture.

In: the requests about all tiles, and what makes one result of theirs. Out: the caller's future. Cancelling it cancels all of them; an error
of one is the error of the whole, and cancels the others. Knows nothing of pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from florence2.answer_events import OnEvent
from florence2.engine.pending import PendingAnswer
from florence2.engine.request import Request, step_failure
from florence2.errors import Florence2Error, InvalidOption
from florence2.results import Result
from florence2.tiling.tiles import Tiles, as_tiles


class TiledAnswer(PendingAnswer[Result]):
    """The future of an answer that is made of several.

    Args:
        parts: the requests for the parts, none of them queued yet; their futures become this one's own.
        merge: makes the result of theirs, in their order; runs in the engine's thread.
    """

    def __init__(self, parts: Sequence[Request[Result]], merge: Callable[[list[Result]], Result]) -> None:
        super().__init__()
        self._merge = merge
        self._lock = threading.Lock()
        self._num_left = len(parts)
        self._is_settled = False
        self._parts: list[_PartAnswer] = []
        for part in parts:
            part.future = answer = _PartAnswer(self)
            self._parts.append(answer)
        for answer in self._parts:
            answer.add_done_callback(self._note)

    def cancel(self) -> bool:
        """Cancel the answers about all tiles; False where the result is there already."""
        if not super().cancel():
            return False
        if self._is_first():
            self.set_running_or_notify_cancel()  # wakes those that wait for several futures
        for part in self._parts:
            part.cancel()
        return True

    def _note(self, part: Future[Result]) -> None:
        """Take note that a part is done; the last one, or the first without a result, settles the whole."""
        with self._lock:
            self._num_left -= 1
            is_last = not self._num_left
        if self.done():
            return
        if part.cancelled():  # by the engine, which closes
            self.cancel()
        elif (error := part.exception()) is not None:
            self._settle(error)
            for other in self._parts:
                other.cancel()
        elif is_last:
            self._settle(self._merged())

    def _merged(self) -> Result | BaseException:
        try:
            return self._merge([part.result() for part in self._parts])
        except BaseException as error:  # nothing may be raised in the engine's thread
            return error if isinstance(error, Florence2Error) else step_failure(error)

    def _settle(self, outcome: Result | BaseException) -> None:
        if not self._is_first() or (self.done() and not self.cancelled()):  # done already: the caller has given it an outcome
            return
        if not self.set_running_or_notify_cancel():
            return
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

    def _is_first(self) -> bool:
        """True exactly once: for who settles the future."""
        with self._lock:
            was_settled, self._is_settled = self._is_settled, True
        return not was_settled


class _PartAnswer(PendingAnswer[Result]):
    """The future of the answer about one tile."""

    def __init__(self, whole: TiledAnswer) -> None:
        super().__init__()
        self._whole = whole

    def leave_behind(self, error: BaseException) -> None:
        """In a forked child: fail, and have the whole fail."""
        super().leave_behind(error)
        self._whole.leave_behind(error)


def tiles_of(tiles: Tiles | str | int | None, on_event: OnEvent | None) -> Tiles | None:
    """The tiles of a request, checked; None where the picture is asked about as a whole."""
    if tiles is None:
        return None
    tiles = as_tiles(tiles)
    if on_event is not None:
        raise InvalidOption(
            "answers in tiles are made one when all are there and can't be streamed: ask without events (run, submit), or leave tiles out",
            field="tiles",
        )
    return tiles
