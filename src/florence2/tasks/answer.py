"""From what the model generated to a result.

In: the prompt's task, the generated ids or their text, and the size of the original image. Out: a
``florence2.results.Result``, or its dictionary. It brings tokenizer, parsing, coordinates and scores together and
holds no rule of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from florence2.errors import InvalidOption, InvalidPrompt
from florence2.results import FinishReason, Form, FoundObject, Result, object_of
from florence2.tasks.coordinates import check_image_size, dequantize
from florence2.tasks.parsing import Found, find_objects
from florence2.tasks.prompt import Prompt
from florence2.tasks.reader import AnswerReader, Part, grammar_of, kind_of
from florence2.tasks.sentinels import TextFilter
from florence2.tasks.table import TASKS
from florence2.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def parse(
    tag: str,
    text: str,
    image_size: Sequence[int] | None = None,
    banned_phrases: frozenset[str] = frozenset(),
    *,
    coordinates: Literal["int", "float"] = "int",
) -> dict[str, Any]:
    """The reference's dictionary for a generated text.

    Args:
        tag: A task's tag; under any other string the text comes back as it is, as the reference has it.
        text: What the model generated, special tokens kept.
        image_size: Width and height of the original image in pixels; None will do where the answer is a text.
        banned_phrases: Labels that grounding leaves out: the checkpoint's list.
        coordinates: As of ``florence2.results.Result.to_dict``.

    Raises:
        InvalidOption: ``image_size`` is not two whole numbers of at least 1, or missing; another word for ``coordinates``.
        InvalidPrompt: ``tag`` or ``text`` is no string.
    """
    for name, value in (("tag", tag), ("text", text)):
        if not isinstance(value, str):
            raise InvalidPrompt(f"{name} must be a string; got {type(value).__name__}", field=name)
    found = find_objects(grammar_of(tag), text, banned_phrases)
    if image_size is None:
        if tag in TASKS and TASKS[tag].kind != "text":
            raise InvalidOption(f"{tag} finds places: give image_size=(width, height) of the original image in pixels", field="image_size")
        image_size = (1, 1)  # a text has no locations
    return _result(tag, tag, text, _plain(tag, text), found, check_image_size(image_size)).to_dict(coordinates=coordinates)


def read_answer(prompt: Prompt, text: str, image_size: Sequence[int]) -> Result:
    """The result that a text would be, had the model generated it.

    Args:
        prompt: What was asked.
        text: What stands between ``<s>`` and ``</s>``.
        image_size: Width and height of the original image in pixels.

    Raises:
        InvalidOption: ``image_size`` is not two whole numbers of at least 1.
    """
    found = find_objects(grammar_of(prompt.tag), text)
    return _result(prompt.task_key, prompt.tag, text, _plain(prompt.tag, text), found, check_image_size(image_size))


def interpret(
    prompt: Prompt,
    *,
    token_ids: Sequence[int],
    log_probabilities: Sequence[float] | None,
    tokenizer: Tokenizer,
    image_size: Sequence[int],
    finish_reason: FinishReason,
    banned_phrases: frozenset[str] = frozenset(),
    scores: bool = False,
    location_probabilities: Sequence[NDArray[np.float32] | None] = (),
    reader: AnswerReader | None = None,
) -> Result:
    """The result of one generated sequence.

    Args:
        prompt: What was asked.
        token_ids: The generated ids after the decoder's start token.
        log_probabilities: For each of them its log-probability along the winning beam, or None where not known.
        tokenizer: The checkpoint's tokenizer.
        image_size: Width and height of the original image in pixels.
        finish_reason: Why generation ended.
        banned_phrases: Labels that grounding leaves out: the checkpoint's list.
        scores: Whether the result gets a score per object; needs ``log_probabilities``.
        location_probabilities: For each id that is a location the probabilities of all locations at its position; None for other ids.
            Without them, a location only has the probability of exactly these bins, which is small even if the model is certain.
        reader: What has read these tokens while they were generated, with the same prompt and options; None where nothing has.

    Raises:
        ValueError: Scores without log-probabilities, or not one entry per id.
        InvalidOption: ``image_size`` is not two whole numbers of at least 1.
    """
    if log_probabilities is not None and len(log_probabilities) != len(token_ids):
        raise ValueError(f"expected one log-probability per token, got {len(log_probabilities)} for {len(token_ids)} tokens")
    if location_probabilities and len(location_probabilities) != len(token_ids):
        raise ValueError(f"expected one entry per token, got {len(location_probabilities)} for {len(token_ids)} tokens")
    if reader is None or not reader.has_whole_answer:
        if scores and log_probabilities is None and kind_of(prompt.tag) != "text":
            raise ValueError("scores need the log-probabilities of the generated tokens")
        reader = AnswerReader(prompt, tokenizer, banned_phrases, scores=scores)
        reader.add(token_ids, log_probabilities or (), location_probabilities, is_last=True)
    result = replace(
        _result(prompt.task_key, prompt.tag, reader.raw, reader.text, reader.found, check_image_size(image_size)),
        token_ids=[int(index) for index in token_ids],
        finish_reason=finish_reason,
        log_probability=None if log_probabilities is None else math.fsum(log_probabilities),
        log_probabilities=None if log_probabilities is None else [float(value) for value in log_probabilities],
    )
    if reader.scores is None:
        return result
    scored = reader.scores
    return replace(result, scores=scored.objects, label_scores=scored.labels, location_scores=scored.locations)


def found_objects(prompt: Prompt, part: Part, image_size: tuple[int, int]) -> Iterator[tuple[FoundObject, list[Any]]]:
    """The objects of a part of an answer with their location bins, as the result of the whole has them.

    Args:
        prompt: What was asked.
        part: What an ``AnswerReader`` has read.
        image_size: Width and height of the original image in pixels.
    """
    kind = kind_of(prompt.tag)
    for index, item in enumerate(part.found):
        scored = part.scores
        scores = () if scored is None else (scored.objects[index], scored.labels[index], scored.locations[index])
        form: Form = "polygons" if isinstance(item.bins[0], list) else "quad" if kind == "quads" else "box"
        found = object_of(form, item.label, _pixels(item.bins, image_size), *scores)
        if found is not None:
            yield found, item.bins


def _plain(tag: str | None, text: str) -> str:
    return TextFilter(kind_of(tag)).add(text, is_last=True)


def _result(key: str, tag: str | None, raw: str, text: str, found: list[Found], image_size: tuple[int, int]) -> Result:
    kind = kind_of(tag)
    if kind == "text":
        return Result(task=key, kind=kind, image_size=image_size, text=text, raw=raw)
    bins = [item.bins for item in found]
    shapes = [_pixels(item.bins, image_size) for item in found]
    are_polygons = bool(bins) and isinstance(bins[0][0], list)
    return Result(
        task=key,
        kind=kind,
        image_size=image_size,
        text=text,
        raw=raw,
        boxes=[] if are_polygons or kind == "quads" else shapes,
        quads=shapes if kind == "quads" else [],
        polygons=shapes if are_polygons else [],
        labels=[item.label for item in found],
        bins=bins,
    )


def _pixels(bins: list[Any], image_size: tuple[int, int]) -> list[Any]:
    if isinstance(bins[0], list):
        return [dequantize(polygon, image_size) for polygon in bins]
    return dequantize(bins, image_size)
