"""The objects of an answer with their classes, as numbers and names.

In: a result, and the classes that its user counts with. Out: its objects in the order of generation, those of other classes left out. An
answer about a region is one object there: the region, under the name that the answer gives it. Knows no other library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from florence2.errors import InvalidOption
from florence2.location_bins import split_region

if TYPE_CHECKING:
    from florence2.results import FoundObject, Result

Classes = Sequence[str] | Mapping[str, int]
Coordinates = Literal["int", "float"]

NAMELESS = "object"  # the class of regions and outlines to which the task gives no name
_NAMED_REGIONS = ("<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>")


class Classed(NamedTuple):
    """An object with its class.

    Attributes:
        found: the object.
        name: the name of its class as the user spells it; without the user's classes its label.
        class_id: the number of its class.
    """

    found: FoundObject
    name: str
    class_id: int


def classed(result: Result, classes: Classes | None, first_id: int, coordinates: Coordinates) -> list[Classed]:
    """The objects of a result that have one of the classes.

    Args:
        result: any result.
        classes: names, numbered in their order, or numbers by names. Case and runs of spaces do not matter. None for the labels of this
            result, numbered in the order of their first objects. A single class is also that of objects without a label.
        first_id: the number of the first class where ``classes`` has none.
        coordinates: as ``Result.to_dict`` takes it.

    Raises:
        InvalidOption: ``classes`` is not what it says above, or unrounded coordinates are not known.
    """
    found = _located(result, coordinates)
    if classes is None:
        names = list(dict.fromkeys(each.label or NAMELESS for each in found))
        return [Classed(each, name := each.label or NAMELESS, names.index(name) + first_id) for each in found]
    known = _by_key(classes, first_id)
    nameless = next(iter(known)) if len(known) == 1 else NAMELESS
    return [Classed(each, *known[key]) for each in found if (key := _key(each.label) or nameless) in known]


def class_names(classes: Classes | None, objects: Sequence[Classed], first_id: int) -> dict[int, str]:
    """The name of each class by its number: those that the user counts with, or else those of the objects."""
    if classes is None:
        return {each.class_id: each.name for each in objects}
    names: dict[int, str] = {}
    for name, class_id in _by_key(classes, first_id).values():
        names.setdefault(class_id, name)
    return names


def has_no_objects(result: Result) -> bool:
    """Whether the answer is a text that names no region, so that there can't be objects."""
    return result.kind == "text" and result.task not in _NAMED_REGIONS and _region(result) is None


def _located(result: Result, coordinates: Coordinates) -> Sequence[FoundObject]:
    if result.kind == "text":
        return () if (region := _region(result)) is None else result.from_dict(region, result.image_size).objects
    if coordinates == "int":
        return result.objects
    return result.from_dict(result.to_dict(coordinates=coordinates), result.image_size).objects


def _region(result: Result) -> dict[str, Any] | None:
    """The region that a text is about, as an answer of which the text is the label; None where it names none, or more than one."""
    name, box = split_region(result.text, result.image_size)
    return None if box is None or "<loc_" in name else {result.task: {"bboxes": [box], "labels": [name]}}


def _by_key(classes: Classes, first_id: int) -> dict[str, tuple[str, int]]:
    """Name and number of each class by what its spellings have in common."""
    wanted = "classes are names in the order of their numbers, or a dictionary of numbers by names"
    if isinstance(classes, str) or not isinstance(classes, (Mapping, Sequence)):
        raise InvalidOption(f"{wanted}, such as ['car', 'traffic light']; got {classes!r:.80}", field="classes")
    pairs = list(classes.items()) if isinstance(classes, Mapping) else [(name, number) for number, name in enumerate(classes, first_id)]
    found: dict[str, tuple[str, int]] = {}
    for name, number in pairs:
        if not isinstance(name, str) or not isinstance(number, int) or isinstance(number, bool):
            raise InvalidOption(f"{wanted}, such as {{'car': 3}}; got {name!r:.80} with {number!r:.80}", field="classes")
        if found.setdefault(_key(name), (name, number))[1] != number:
            raise InvalidOption(f"classes names {name!r:.80} twice, with different numbers; leave one out", field="classes")
    return found


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()
