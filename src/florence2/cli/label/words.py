"""What a labelling run is asked to do, of the words on the command line.

In: options as they were given, None where they were not. Out: ``LabelOptions``. Knows nothing of pictures and models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.errors import InvalidOption

if TYPE_CHECKING:
    from florence2.labelling.options import LabelOptions


def read_options(given: Mapping[str, Any], classes: Sequence[str], classes_file: Path | None, class_map: Sequence[str]) -> LabelOptions:
    """The options of a run; what was not given has its default.

    Args:
        given: fields of ``LabelOptions``, None where they were not given.
        classes: lists of classes, separated by commas.
        classes_file: a file with classes.
        class_map: words ``OLD=NEW``, separated by commas, and files with such lines.

    Raises:
        InvalidRequest: something that can't be.
    """
    from florence2.labelling.options import LabelOptions

    return LabelOptions(**_values(given, classes, classes_file, class_map))


def changed_options(
    before: LabelOptions, given: Mapping[str, Any], classes: Sequence[str], classes_file: Path | None, class_map: Sequence[str]
) -> LabelOptions:
    """The options of a run that is there, with what was given now; arguments as in ``read_options``.

    Raises:
        InvalidOption: something else is to be asked, for which there are no answers.
    """
    from florence2.labelling.options import changes

    values = _values(given, classes, classes_file, class_map)
    names = {each.name for each in fields(before) if each.metadata.get("group") == "asked"}
    asked = {name: value for name, value in values.items() if name in names}
    if asked:
        told = changes(before.asked, replace(before, **asked).asked)
        if told:
            raise InvalidOption(f"the folder holds answers to something else: {'; '.join(told)}; name the pictures and an --output")
    return replace(before, **{name: value for name, value in values.items() if name not in names})


def _values(given: Mapping[str, Any], classes: Sequence[str], classes_file: Path | None, class_map: Sequence[str]) -> dict[str, Any]:
    """The fields that were given."""
    from florence2.labelling.class_names import read_class_map, read_classes_file, split_classes

    values = {name: value for name, value in given.items() if value is not None}
    if classes and classes_file is not None:
        raise InvalidOption("--classes and --classes-file are given; leave one of them out", field="classes_file")
    if classes:
        values["classes"] = [name for words in classes for name in split_classes(words)]
    if classes_file is not None:
        values["classes"] = read_classes_file(classes_file)
    if class_map:
        values["class_map"] = read_class_map([pair for word in class_map for pair in _pairs(word)])
    return values


def _pairs(word: str) -> list[str]:
    """The pairs in a word, or in the file of that name."""
    path = Path(word)
    if "=" in word and not path.is_file():
        return word.split(",")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidOption(f"--class-map takes OLD=NEW or a file with such lines, got {word!r} ({reason})", field="class_map") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
