"""One result of the results about the tiles of a picture.

In: a result for each tile, all answers to one prompt. Out: the result that the whole picture would have had, seen closer. Objects are in
pixels of the whole picture, from top to bottom and left to right, texts in reading order. Knows nothing of how answers are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from florence2.location_bins import NUM_BINS
from florence2.results import Form, FoundObject, Result, Usage
from florence2.sources import Source
from florence2.tasks.coordinates import dequantize
from florence2.tasks.vocabulary import location_token
from florence2.tiling.grouping import united
from florence2.tiling.reading import lines_of, read_together
from florence2.tiling.sightings import sightings_of
from florence2.tiling.tasks import MATCHINGS, OCR
from florence2.tiling.tiles import TileBox
from florence2.timing import of_parts


def merge(
    results: Sequence[Result], boxes: Sequence[TileBox], size: tuple[int, int], *, task: str | None = None, source: Source | None = None
) -> Result:
    """The result about the whole picture; a single result about the whole picture is returned as it is.

    Args:
        results: one for each tile, of one of the tasks that make sense in parts.
        boxes: the tiles, as ``Tiles.boxes`` gives them.
        size: width and height of the picture in pixels.
        task: "<OCR>" for answers to ``<OCR_WITH_REGION>`` that are to become a plain text; None for the task of the results.
        source: what the result refers to; None for no image.

    Returns:
        ``bins`` are those of the whole picture and need not be whole numbers, as tiles are read more finely. ``raw``, ``token_ids`` and
        log-probabilities are those of the tiles, one after the other; ``usage`` is their sum; ``finish_reason`` is "length" where any of
        them was.
    """
    whole = (0, 0, *size)
    if list(boxes) == [whole]:
        return results[0]
    matching = MATCHINGS[results[0].task]
    # What fills its tile is a part of something larger, or what a model finds that has to find something.
    views = [view for view in sightings_of(results, boxes, size) if not (whole in boxes and view.fills_its_tile)]
    tiles = [tile for tile in boxes if tile != whole]
    if matching.is_text:
        found = list(chain.from_iterable(lines_of(view.found for view in read_together(views, tiles))))
    else:
        found = sorted((view.found for view in united(views, matching, tiles)), key=_from_the_top)
    result = _result(found, results, size, source)
    return as_plain_text(result) if task == OCR else result


def _from_the_top(found: FoundObject) -> tuple:
    return (found.box[1], found.box[0], found.box, found.label)


def as_plain_text(result: Result) -> Result:
    """The answer to ``<OCR>`` of a merged one to ``<OCR_WITH_REGION>``: a line of text for each line, its words parted by spaces."""
    text = "\n".join(" ".join(word.label for word in line) for line in lines_of(result.objects))
    return replace(
        result,
        task=OCR,
        kind="text",
        text=text,
        quads=[],
        labels=[],
        bins=[],
        scores=None,
        label_scores=None,
        location_scores=None,
        _source=result.source,
    )


def _result(found: Sequence[FoundObject], results: Sequence[Result], size: tuple[int, int], source: Source | None) -> Result:
    """The result with these objects."""
    first = results[0]
    has_polygons = bool(found) and all(one.polygons for one in found)
    form = "quad" if first.kind == "quads" else "polygons" if has_polygons else "box"
    bins = [_bins(one, form, size) for one in found]
    shapes: list[Any] = [[dequantize(part, size) for part in one] if form == "polygons" else dequantize(one, size) for one in bins]
    has_scores = all(result.scores is not None for result in results)
    return Result(
        task=first.task,
        kind=first.kind,
        image_size=size,
        text="".join(map(_written, found, bins)),
        raw="\n".join(result.raw for result in results),
        boxes=shapes if form == "box" else [],
        quads=shapes if form == "quad" else [],
        polygons=shapes if form == "polygons" else [],
        labels=[one.label for one in found],
        bins=bins,
        scores=[float(one.score or 0.0) for one in found] if has_scores else None,
        label_scores=[one.label_score for one in found] if has_scores else None,
        location_scores=[one.location_score for one in found] if has_scores else None,
        _source=source,
        **_taken(results),
    )


def _taken(results: Sequence[Result]) -> dict[str, Any]:
    """What generating all results took."""
    usages = [result.usage for result in results if result.usage is not None]
    sums = [result.log_probability for result in results if result.log_probability is not None]
    parts = [result.log_probabilities for result in results if result.log_probabilities is not None]
    timings = [result.timing for result in results if result.timing is not None]
    return {
        "token_ids": list(chain.from_iterable(result.token_ids for result in results)),
        "finish_reason": "length" if any(result.finish_reason == "length" for result in results) else "stop",
        "log_probability": math.fsum(sums) if len(sums) == len(results) else None,
        "log_probabilities": list(chain.from_iterable(parts)) if len(parts) == len(results) else None,
        "usage": _sum(usages) if len(usages) == len(results) else None,
        "timing": of_parts(timings) if len(timings) == len(results) else None,
    }


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        sum(usage.num_prompt_tokens for usage in usages),
        sum(usage.num_image_tokens for usage in usages),
        sum(usage.num_answer_tokens for usage in usages),
        all(usage.is_image_cached for usage in usages),
    )


def _bins(found: FoundObject, form: Form, size: tuple[int, int]) -> list[Any]:
    """The location bins of an object in the whole picture, which need not be whole numbers."""
    if form == "polygons":
        return [_as_bins(outline, size) for outline in found.polygons]
    return _as_bins(found.outlines[0] if form == "quad" else found.box, size)


def _as_bins(outline: Sequence[float], size: tuple[int, int]) -> list[float]:
    return [round(value * NUM_BINS / size[index % 2] - 0.5, 6) for index, value in enumerate(outline)]


def _written(found: FoundObject, bins: list[Any]) -> str:
    """An object as the model would have written it about the whole picture."""
    outlines = bins if isinstance(bins[0], list) else [bins]
    written = ["".join(location_token(min(max(round(value), 0), NUM_BINS - 1)) for value in outline) for outline in outlines]
    return f"{found.label}<poly>{'<sep>'.join(written)}</poly>" if isinstance(bins[0], list) else f"{found.label}{written[0]}"
