"""Which of the objects that were found go into the data set, and under which class.

In: the answers about one picture, and the options on what is written. Out: the answers with what is left of them, and the objects of the
picture: classes renamed, small and uncertain ones left out, one object found twice counted once. What was left out is counted by its
reason. Knows no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from florence2.datasets.labelled import LabelledObject
from florence2.labelling.answers import NAMING_TAGS, Answered, Said, Size
from florence2.labelling.class_names import key_of
from florence2.labelling.options import LabelOptions, size_limit
from florence2.results import Box

SAME_IOU = 0.9
"""From this IoU on, two objects of one class are the same one."""

UNSCORED = "without a score"


@dataclass(frozen=True)
class Filtered:
    """What is left of a picture's answers.

    Attributes:
        answers: with the objects that were kept; one found by two questions is in the answers to both.
        objects: all of them, each once.
    """

    answers: tuple[Answered, ...]
    objects: tuple[LabelledObject, ...]


class Filters:
    """What a run's options leave out.

    Args:
        options: of them ``class_map``, ``min_score``, ``min_size`` and ``suppress_overlaps``.

    Attributes:
        unused_names: names of ``class_map`` that nothing was called yet.
    """

    def __init__(self, options: LabelOptions) -> None:
        self.unused_names = set(options.class_map)
        self._options = options
        self._min_side = None if options.min_size is None else size_limit(options.min_size)

    def apply(self, answers: Sequence[Answered], size: Size, lost: Counter[str]) -> Filtered:
        """The answers about a picture, filtered.

        Args:
            answers: those of ``read_answers``.
            size: width and height of the picture.
            lost: gets the number of objects that were left out, by the reason.
        """
        kept = [replace(answer, found=_each_once(self._kept(answer, size, lost), lost)) for answer in answers]
        suppressed = self._suppressed([said.thing for answer in kept for said in answer.found])
        if suppressed:
            lost["overlapped by another class"] += len(suppressed)
            kept = [replace(one, found=tuple(said for said in one.found if id(said.thing) not in suppressed)) for one in kept]
        objects = [said for answer in kept for said in answer.found]
        return Filtered(tuple(kept), tuple(said.thing for said in _each_once(objects, lost)))

    def _kept(self, answer: Answered, size: Size, lost: Counter[str]) -> list[Said]:
        kept = []
        for said in answer.found:
            thing = said.thing
            name = self._renamed(thing.label) if self._options.class_map else thing.label
            fault = self._fault(thing, size) if name else "of classes that the class map leaves out"
            if fault:
                lost[fault] += 1
            elif name == thing.label:
                kept.append(said)
            else:  # only detection answers with classes; the others say what they were asked for, or a phrase of a caption
                kept.append(Said(name if answer.tag == "<OD>" else said.label, replace(thing, label=name)))
        return kept

    def _renamed(self, label: str) -> str:
        """What a class is called in the data set; "" for one that is left out."""
        key = key_of(label)
        self.unused_names.discard(key)
        return self._options.class_map.get(key, label)

    def _fault(self, thing: LabelledObject, size: Size) -> str | None:
        """Why an object is left out, if it is."""
        options = self._options
        if options.min_score is not None and thing.score is None:
            return UNSCORED
        if options.min_score is not None and thing.score is not None and thing.score < options.min_score:
            return f"with a score under {options.min_score:g}"
        if self._min_side is not None:
            limit, is_part = self._min_side
            sides = (thing.box[2] - thing.box[0], thing.box[3] - thing.box[1])
            if any(side < limit * (whole if is_part else 1) for side, whole in zip(sides, size, strict=True)):
                return f"smaller than {options.min_size}" + ("" if is_part else " pixels")
        return None

    def _suppressed(self, things: Sequence[LabelledObject]) -> set[int]:
        """Which of some objects (by ``id``) overlap one of another class that is more certain; of equals the first stays."""
        limit = self._options.suppress_overlaps
        if limit is None:
            return set()
        order = sorted((one for one in things if one.task in NAMING_TAGS), key=lambda one: -(one.score or 0.0))
        kept: list[LabelledObject] = []
        suppressed: set[int] = set()
        for thing in order:
            if any(other.label != thing.label and iou(other.box, thing.box) >= limit for other in kept):
                suppressed.add(id(thing))
            else:
                kept.append(thing)
        return suppressed


def _each_once(found: Sequence[Said], lost: Counter[str]) -> tuple[Said, ...]:
    """The objects without those of which the same class was found at the same place before; the higher score and any outline are kept."""
    kept: list[Said] = []
    for said in found:
        thing = said.thing
        twin = next((index for index, other in enumerate(kept) if _is_same(other.thing, thing)), None)
        if twin is None:
            kept.append(said)
            continue
        lost["found twice"] += 1
        first = kept[twin]
        shaped = first.thing if first.thing.polygons or not thing.polygons else thing
        scores = [score for score in (first.thing.score, thing.score) if score is not None]
        merged = replace(first.thing, box=shaped.box, polygons=shaped.polygons, score=max(scores, default=None))
        if merged != first.thing:
            kept[twin] = Said(first.label, merged)
    return tuple(kept)


def _is_same(first: LabelledObject, second: LabelledObject) -> bool:
    return first.label == second.label and first.text == second.text and iou(first.box, second.box) >= SAME_IOU


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes that have areas."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / (areas - width * height)
