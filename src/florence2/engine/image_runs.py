"""Answers about many pictures, as they are found: what ``florence2 infer`` takes, from Python.

In: names of files, folders, patterns, URLs, documents and videos, or pictures in memory, and prompts. Out: each picture with its results,
in order, while the next ones are read and answered. Pictures are fetched and opened here because the program's author named them: nothing
that takes names from others (the server) may come here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from florence2.errors import InvalidImage, InvalidOption, InvalidRegion
from florence2.images import ImageInput, read_image
from florence2.images.kinds import kind_of_input
from florence2.in_flight import in_flight, read_ahead
from florence2.inputs.find import find_inputs
from florence2.inputs.input import Input
from florence2.inputs.pictures import Picture, read_pictures
from florence2.inputs.selection import Selection
from florence2.request_options import resolve_options
from florence2.sources import remember
from florence2.tasks.tokenized_prompt import AnyPrompt, TokenizedPrompt
from florence2.tiling.tasks import check_tiled
from florence2.tiling.tiles import as_tiles

if TYPE_CHECKING:
    from typing import Unpack

    from florence2.engine.engine import Engine
    from florence2.request_options import RequestOptions
    from florence2.results import Result

logger = logging.getLogger(__name__)

ImageInputs = ImageInput | Iterable[ImageInput]


@dataclass(frozen=True)
class ImageResults:
    """One picture and the answers about it.

    Attributes:
        name: as it was given or found, a page or frame with its mark (``report.pdf#page=3``); ``image 0`` for the first in memory.
        path: the file that it is, or that it is a part of; None for what is no file.
        size: width and height in pixels; None where there is no picture.
        error: why it can't be read, that it has too many tiles, or why a region does not lie in it; None where it was answered.
    """

    name: str
    path: Path | None
    size: tuple[int, int] | None
    error: InvalidImage | InvalidRegion | None
    _results: tuple[Result, ...] = ()

    @property
    def results(self) -> tuple[Result, ...]:
        """The results, one for each prompt, in order.

        Raises:
            InvalidImage: there is no picture, or it has too many tiles.
            InvalidRegion: a region does not lie in it.
        """
        if self.error is not None:
            raise self.error
        return self._results


def run_images(
    self: Engine,
    images: ImageInputs,
    prompts: AnyPrompt | Sequence[AnyPrompt],
    *,
    frames: str = "first",
    pages: str | None = None,
    every: str | None = None,
    **options: Unpack[RequestOptions],
) -> Iterator[ImageResults]:
    """Each picture with the answers about it, in order, as soon as they are there.

    The next pictures are read in the meantime, each is encoded once for all prompts, and few are in memory. A picture that can't be read
    has its ``error`` and does not end the others. Closing the iterator cancels what is under way.

    Args:
        self: the engine.
        images: a path, folder, pattern, list (``@FILE``), URL, data URI or ``-`` for standard input, as ``florence2 infer`` takes them, a
            Pillow image, array, tensor or bytes, or any number of these, such as a list or a generator.
        prompts: one prompt or several, as in ``run_many``.
        frames: of animated files "first" or "all".
        pages: of PDF and TIFF files "1-3,7", "5-" or "all"; None for all of a PDF, the first of a TIFF.
        every: of a video a frame every "2s" or "30f"; None for one a second.
        options: those of ``RequestOptions``. ``keep_image`` left out, results refer to files and pictures in memory, and not to what was
            fetched or taken out of a document or video; True has them keep that, too.

    Raises:
        InvalidRequest: a prompt or option is wrong.
        EngineClosed: the engine is closed.
    """
    selection = Selection(pages, frames, every)
    if options.get("auto_orient") is False:
        raise InvalidOption(
            "auto_orient must be left out: run_images takes files as they are seen; run takes them as stored", field="auto_orient"
        )
    many = [prompts] if isinstance(prompts, str) or not isinstance(prompts, Sequence) else prompts
    free = bool(options.get("allow_unknown_tag"))
    prepared = [one if isinstance(one, TokenizedPrompt) else self.prepare(one, allow_unknown_tag=free) for one in many]
    _check(self, options, prepared)
    return _answered(self, _pictures(images, selection), prepared, options)


def _check(engine: Engine, options: RequestOptions, prompts: Sequence[TokenizedPrompt]) -> None:
    """Refuse what is wrong for every picture, before one is read."""
    plain = options.copy()
    plain.pop("fair_key", None)
    engine._adapters.find(plain.pop("adapter", None))
    tiles = plain.pop("tiles", None)
    resolve_options(plain, engine.checkpoint.generation, engine.max_answer_tokens)
    if tiles is not None:
        as_tiles(tiles)
        for prompt in prompts:
            check_tiled(prompt.prompt)


def _answered(
    engine: Engine, pictures: Iterator[Future[Picture]], prompts: Sequence[TokenizedPrompt], options: RequestOptions
) -> Iterator[ImageResults]:
    """Each picture with its answers."""
    errors: dict[int, InvalidImage | InvalidRegion] = {}

    def submit(picture: Picture) -> list[Future[Result]]:
        if isinstance(picture.content, InvalidImage) or not prompts:
            return []
        try:
            return engine.submit_many(picture.content, prompts, **options)
        except (InvalidRegion, InvalidImage) as error:  # it may lie in the next picture, or that may have fewer tiles
            errors[id(picture.content)] = error
            return []

    with closing(in_flight(pictures, submit)) as answered:
        for (image, content), futures in answered:
            path = image.path if image.kind == "file" else None
            if isinstance(content, InvalidImage):
                yield ImageResults(image.id, path, None, content)
                continue
            error = errors.pop(id(content), None)
            results = tuple(_referring(future.result(), image, options) for future in futures)
            yield ImageResults(image.id, path, content.size, error, results)


def _referring(result: Result, image: Input, options: RequestOptions) -> Result:
    """The result, referring to the file of its picture, or to nothing, unless the caller has decided it."""
    if options.get("keep_image") is not None or image.kind == "memory":
        return result
    is_file = image.kind == "file" and image.part is None
    return replace(result, _source=remember(image.path) if is_file else None)


def _pictures(images: ImageInputs, selection: Selection) -> Iterator[Future[Picture]]:
    """The pictures that are named or given, in order, read ahead."""
    is_one = isinstance(images, (str, os.PathLike)) or kind_of_input(images) is not None
    given = [images] if is_one else cast("Iterable[ImageInput]", images)
    numbers = count()
    for is_named, group in groupby(given, lambda one: isinstance(one, (str, os.PathLike))):
        if is_named:
            words = (os.fsdecode(cast("str", word)) for word in group)
            named = (found for word in words for found in find_inputs([word], [], logger.warning))
            yield from read_pictures(named, selection)
        else:
            yield from read_ahead(((f"image {number}", one) for one, number in zip(group, numbers, strict=False)), _in_memory)


def _in_memory(named: tuple[str, Any]) -> Picture:
    """A picture that a program holds."""
    name, given = named
    image = Input(name, "memory")
    try:
        return Picture(image, read_image(given))
    except InvalidImage as error:
        return Picture(image, error)
