"""From inputs to pictures: files are read, URLs fetched by the same fetcher as the client's, documents and videos taken apart.

In: inputs, and which pages and frames of them are wanted. Out: for each picture a future of a Pillow image in RGB, upright, or of
``InvalidImage`` with the reason, under the name that may be shown. At most a few are in memory. Knows nothing of prompts and engines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from florence2.background import in_background
from florence2.console import shown
from florence2.errors import InvalidImage, OutOfMemory
from florence2.image_files import START_BYTES, format_of, page_positions
from florence2.in_flight import NUM_READ_AHEAD
from florence2.inputs import documents, urls, videos
from florence2.inputs.documents import BrokenDocument
from florence2.inputs.input import Input, Part
from florence2.inputs.media import medium_of, missing_reader
from florence2.inputs.selection import Selection
from florence2.inputs.videos import BrokenVideo

if TYPE_CHECKING:
    from PIL import Image

Skip = Callable[[str], bool]
_MAX_BAD_PAGES = 100  # in a row; a small file may claim millions


class Picture(NamedTuple):
    """An input with its pixels, or with what is wrong with it."""

    image: Input
    content: Image.Image | InvalidImage


def read_pictures(
    inputs: Iterable[Input], selection: Selection, *, skip: Skip | None = None, num_ahead: int = NUM_READ_AHEAD
) -> Iterator[Future[Picture]]:
    """Each picture, in order; those of the inputs after it are read in the meantime.

    They are read in threads that end with the process. A document or video gives a picture for each page or frame that is wanted, and one
    with an error where it can't be read, or not to its end.

    Args:
        inputs: what ``find_inputs`` gave.
        selection: which pages and frames are wanted.
        skip: whether the picture of that ``id`` is not wanted; it is left out, and not decoded. None for all.
        num_ahead: how many inputs are read, or wait as read, behind the last one that was taken.
    """
    started: deque[_Series] = deque()
    for given in inputs:
        series = _Series(given, selection, skip)
        if series.is_left_out:
            continue
        started.append(series)
        if len(started) > num_ahead:
            yield from started.popleft().pictures()
    while started:
        yield from started.popleft().pictures()


def read(given: Input) -> Image.Image:
    """The picture of an input; of a file that holds several the first.

    Raises:
        InvalidImage: there is none, for whatever reason.
    """
    content = next(pictures_of(given, Selection())).content
    if isinstance(content, InvalidImage):
        raise content
    return content


def picture_of(image: Input) -> Picture:
    """An input with its picture, or with what is wrong with it."""
    return next(pictures_of(image, Selection()))


def pictures_of(given: Input, selection: Selection, skip: Skip | None = None) -> Iterator[Picture]:
    """The pictures of one input, one after the other; at least one, unless they are skipped."""
    is_wanted = (lambda image: not skip(image.id)) if skip is not None else lambda image: True
    try:
        yield from _pictures_of(given, selection, is_wanted)
    except InvalidImage as error:
        if is_wanted(given):
            yield Picture(given, error)


def reason(error: OSError | MemoryError) -> str:
    """What the system says is wrong."""
    return "out of memory" if isinstance(error, MemoryError) else error.strerror or str(error)


class _Series:
    """The pictures of one input; the first of them is read at once, each other when the one before it is taken.

    Attributes:
        is_left_out: it is a single picture that is not wanted, and is not opened.
    """

    def __init__(self, given: Input, selection: Selection, skip: Skip | None) -> None:
        self.is_left_out = skip is not None and (given.medium not in ("pdf", "video") or given.error is not None) and skip(given.id)
        if self.is_left_out:
            return
        self._may_be_several = given.error is None and (given.kind == "url" or not selection.is_one(given))
        self._may_be_none = self._may_be_several and skip is not None
        self._pictures = pictures_of(given, selection, skip)
        self._first = self._begun()

    def pictures(self) -> Iterator[Future[Picture]]:
        """Each picture; does not wait for the first, unless there may be none."""
        if not self._may_be_none or self._first.result() is not None:
            yield cast("Future[Picture]", self._first)
        if not self._may_be_several or self._first.result() is None:
            return
        following = self._begun()
        while following.result() is not None:
            ahead = self._begun()
            yield cast("Future[Picture]", following)
            following = ahead

    def _begun(self) -> Future[Picture | None]:
        return in_background("florence2-read", partial(next, self._pictures, None))


def _pictures_of(given: Input, selection: Selection, is_wanted: Callable[[Input], bool]) -> Iterator[Picture]:
    """The pictures of one input that are wanted.

    Raises:
        InvalidImage: there is none, or not all can be read.
    """
    import florence2.images as images

    if given.error is not None:
        raise given.error
    try:
        content = _content(given)
        medium = given.medium if isinstance(content, Path) else medium_of(content[:START_BYTES]) or "picture"
        if missing := missing_reader(medium):
            raise _invalid(given, missing)
        if medium == "pdf":
            yield from _pages(given, content, selection, is_wanted)
        elif medium == "video":
            yield from _frames(given, content, selection, is_wanted)
        elif isinstance(content, Path) and selection.pages is None and not selection.has_all_frames:
            yield Picture(given, images.read_image(content))
        else:
            yield from _several(given, content, selection, is_wanted)
    except (BrokenDocument, BrokenVideo) as error:
        raise _invalid(given, str(error)) from error
    except OutOfMemory as error:
        raise _invalid(given, error.message) from error
    except (OSError, MemoryError) as error:
        raise _invalid(given, reason(error)) from error


def _content(given: Input) -> Path | bytes:
    """What an input holds; of documents, videos and pictures in files their path."""
    if given.kind == "file":
        return given.path
    content = urls.fetch(given.name) if given.kind == "url" else given.content
    if not content:
        raise _invalid(given, "it holds nothing")
    return content


def _several(given: Input, source: Path | bytes, selection: Selection, is_wanted: Callable[[Input], bool]) -> Iterator[Picture]:
    """A picture, or those pages and frames of it that are wanted."""
    import florence2.images as images

    content, name = source.read_bytes() if isinstance(source, Path) else source, shown(given.shown)
    kind = format_of(content[:START_BYTES])
    if kind == "TIFF" and selection.pages is not None:
        positions = page_positions(content)
        for number in _chosen(given, selection, len(positions)):
            image = replace(given, part=Part("page", number)) if len(positions) > 1 else given
            if is_wanted(image):
                yield _attempted(image, partial(images.read_bytes, content, name, at=positions[number - 1]))
    elif kind in images.ANIMATED and selection.has_all_frames and images.has_frames(content, name):
        for number, frame in enumerate(images.read_frames(content, name)):
            image = replace(given, part=Part("frame", number))
            if is_wanted(image):
                yield Picture(image, frame)
    else:
        kept = given if isinstance(source, Path) else replace(given, content=content)  # the file as it came, for who keeps it
        yield Picture(kept, images.read_bytes(content, name))


def _attempted(image: Input, reading: Callable[[], Image.Image]) -> Picture:
    """A page, or what is wrong with it."""
    try:
        return Picture(image, reading())
    except InvalidImage as error:
        return Picture(image, error)


def _pages(given: Input, source: Path | bytes, selection: Selection, is_wanted: Callable[[Input], bool]) -> Iterator[Picture]:
    """The pages of a document."""
    num_bad = 0
    with documents.opened(source) as document:
        for number in _chosen(given, selection, document.num_pages):
            image = replace(given, part=Part("page", number))
            if is_wanted(image):
                try:
                    yield Picture(image, document.page(number))
                    num_bad = 0
                except BrokenDocument as error:
                    yield Picture(image, _invalid(image, str(error)))
                    num_bad += 1
            if num_bad == _MAX_BAD_PAGES:
                raise BrokenDocument(f"{num_bad} pages in a row can't be, up to page {number}; what follows was left out")


def _frames(given: Input, source: Path | bytes, selection: Selection, is_wanted: Callable[[Input], bool]) -> Iterator[Picture]:
    """The frames of a video."""

    def part(value: float) -> Input:
        return replace(given, part=Part("time_s" if selection.seconds else "frame", value))

    with videos.opened(source) as video:
        if selection.num_frames:
            frames = video.by_count(selection.num_frames, lambda number: is_wanted(part(number)))
        else:
            frames = video.by_time(selection.seconds or Fraction(1), lambda time: is_wanted(part(time)))
        for value, frame in frames:
            yield Picture(part(value), frame)


def _chosen(given: Input, selection: Selection, num_pages: int) -> list[int]:
    """The pages that are wanted, at least one.

    Raises:
        InvalidImage: the file has none of them.
    """
    numbers = selection.page_numbers(num_pages)
    if not numbers:
        count = "1 page" if num_pages == 1 else f"{num_pages} pages"
        raise _invalid(given, f"--pages {selection.pages} selects none of it: it has {count}" if num_pages else "it has no page")
    return numbers


def _invalid(given: Input, why: str) -> InvalidImage:
    return InvalidImage(f"{shown(given.shown)} can't be read: {why}", field="image")
