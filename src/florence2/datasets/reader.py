"""Data sets from where users have them: JSONL, COCO detection, folders of either, our own scenes.

In: a name: a `.jsonl` file, a COCO `.json` file, a folder with parts, or ``synthetic:COUNT?seed=…``. Out: a `DataSet` of checked
records. Every line and annotation is looked at, so that what is wrong is known before anything long begins. What a file is
shows in its content, not in its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from florence2.datasets.coco import PARTS, is_coco, read_coco
from florence2.datasets.folders import TEST, TRAIN, VALID, file_of
from florence2.datasets.json_files import content_of
from florence2.datasets.jsonl import JsonlReader, entries_of_lines, entries_of_list
from florence2.datasets.pictures import Pictures
from florence2.datasets.record import DataSet, Picture, Record, ScenePicture, make_record, with_boxes
from florence2.errors import DatasetError
from florence2.scenes.scene import SceneOptions
from florence2.scenes.shapes import KINDS
from florence2.scenes.targets import Example, left_to_right, make_targets
from florence2.tasks.table import TASKS
from florence2.training.demo.recipe import IMAGE_SIZE, WORLD

SYNTHETIC = "synthetic:"
FIRST_FREE_SEED = 1_000_000
"""Scenes under this seed and those after it are never learnt from."""
OPTIONS = ("seed", "size", "kinds", "objects", "smallest", "words", "tasks")

Progress = Callable[[int], None]


@dataclass(frozen=True)
class SyntheticSpec:
    """``synthetic:COUNT?seed=S&…`` taken apart.

    Attributes:
        count: scenes.
        seed: of the whole set; scene number N is the same whatever the count.
        size: side of a scene in pixels.
        tags: the tasks that are asked about.
        options: what scenes may hold.
    """

    count: int
    seed: int
    size: int
    tags: tuple[str, ...]
    options: SceneOptions


def read_dataset(
    name: str,
    *,
    images: Path | None = None,
    prompt: str = "<OD>",
    own_tags: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
    for_training: bool = True,
    answered: bool = True,
) -> DataSet:
    """The data set of that name.

    Args:
        name: a `.jsonl` file, a COCO detection `.json` file, a folder with train, valid and test, or ``synthetic:COUNT?seed=…``. Of a
            folder, ``train`` is learnt from, and ``test`` measured on, or ``valid`` where there is no ``test``.
        images: the folder that pictures' names are relative to; None is the file's own.
        prompt: what is asked about the pictures of a COCO file: `<OD>`, or `<OPEN_VOCABULARY_DETECTION>` for all of its classes by name.
        own_tags: let prompts pass that begin like a tag which is none of the fifteen.
        limit: at most so many pictures; None is all.
        progress: called with the number of pictures looked at so far.
        for_training: whether it is learnt from; scenes to learn from and scenes to be measured on have seeds of their own.
        answered: whether every line of a `.jsonl` file must have an answer; a record without one has no ``answers``.

    Raises:
        DatasetError: there is no such file, or it is no data set at all. What is wrong within it is in `DataSet.problems`.
    """
    if name.startswith(SYNTHETIC):
        return _synthetic(name, limit, progress, for_training)
    path = file_of_dataset(name, for_training)
    pictures = Pictures(images or path.parent)
    content = content_of(path) if path.suffix.lower() == ".json" else None
    if is_coco(content):
        return read_coco(path, content, pictures, prompt, limit, progress)
    if content is not None and not _is_list_of_records(content):
        raise DatasetError(f"{path} is no COCO detection file: expected an object with the lists {', '.join(PARTS)}")
    entries = entries_of_lines(path) if content is None else entries_of_list(path, content)
    return JsonlReader(pictures, own_tags, answered).read(str(path), entries, limit, progress)


def check_name(name: str, *, for_training: bool = True) -> None:
    """Refuse the name of a data set that is not there, without reading one that is.

    Raises:
        DatasetError: there is no such file, or no such scenes.
    """
    if name.startswith(SYNTHETIC):
        parse_synthetic(name, default_seed=0)
    else:
        file_of_dataset(name, for_training)


def file_of_dataset(name: str, for_training: bool) -> Path:
    """The file that holds a data set: itself, or the one of a folder's part.

    Raises:
        DatasetError: there is none.
    """
    path = Path(file_of(name, (TRAIN,) if for_training else (TEST, VALID)))
    if not path.is_file():
        raise DatasetError(
            f"there is no data set {name!r}: expected a .jsonl file, a COCO .json file, a folder with train, valid and test, "
            f"or {SYNTHETIC}COUNT?seed=S"
        )
    return path


def _is_list_of_records(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(entry, dict) and "image" in entry for entry in content)


def parse_synthetic(name: str, *, default_seed: int) -> SyntheticSpec:
    """``synthetic:COUNT?seed=S&size=P&kinds=A,B&objects=1-8&smallest=0.1&words=0-2&tasks=OD,OCR`` taken apart.

    Raises:
        DatasetError: an option that there is not, or a value that it can't have.
    """
    count, _, query = name.removeprefix(SYNTHETIC).partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [key for key in given if key not in OPTIONS]
    if unknown:
        raise DatasetError(f"{name}: no such option: {', '.join(unknown)}; there are {', '.join(OPTIONS)}")
    kinds = tuple(kind for part in given.get("kinds", "known").split(",") for kind in (KINDS if part == "known" else (part,)))
    tags = tuple(f"<{part.strip('<>').upper()}>" for part in given["tasks"].split(",")) if "tasks" in given else tuple(TASKS)
    if set(tags) - set(TASKS):
        raise DatasetError(f"{name}: tasks are out of {', '.join(tag.strip('<>') for tag in TASKS)}")
    try:
        options = replace(
            WORLD,
            num_objects=_range("objects", given, WORLD.num_objects),
            num_words=_range("words", given, WORLD.num_words),
            kinds=kinds,
            object_size=(_number("smallest", given.get("smallest", WORLD.object_size[0])), WORLD.object_size[1]),
        )
        seed, size = _whole("seed", given.get("seed", default_seed)), _whole("size", given.get("size", IMAGE_SIZE))
        spec = SyntheticSpec(_whole("COUNT", count), seed, size, tags, options)
    except ValueError as error:
        raise DatasetError(f"{name}: {error}") from None
    if spec.count < 1 or spec.seed < 0 or not 64 <= spec.size <= 4096:
        raise DatasetError(f"{name}: expected at least one scene, a seed of at least 0 and a size from 64 to 4096 pixels")
    return spec


def _range(key: str, given: dict[str, str], default: tuple[int, int]) -> tuple[int, int]:
    if key not in given:
        return default
    low, _, high = given[key].partition("-")
    return _whole(key, low), _whole(key, high or low)


def _whole(key: str, value: str | int) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{key} must be a whole number, got {value!r}") from None


def _number(key: str, value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{key} must be a number, got {value!r}") from None


def _synthetic(name: str, limit: int | None, progress: Progress | None, for_training: bool) -> DataSet:
    """Scenes that know their answers; each is asked one question for each task that it has an answer to."""
    spec, data = parse_synthetic(name, default_seed=0 if for_training else FIRST_FREE_SEED), DataSet(name)
    if for_training != (spec.seed < FIRST_FREE_SEED):
        seeds = f"under {FIRST_FREE_SEED}" if for_training else f"of at least {FIRST_FREE_SEED}"
        raise DatasetError(f"{name}: scenes to {'learn from' if for_training else 'be measured on'} have seeds {seeds}; got {spec.seed}")
    for number in range(spec.count if limit is None else min(limit, spec.count)):
        picture = ScenePicture(spec.seed, number, spec.size, spec.options)
        scene, rng = picture.draw()
        for tag, examples in make_targets(scene, rng).items():
            if tag in spec.tags and examples:
                data.records.append(_scene_record(picture, scene, examples[int(rng.integers(len(examples)))]))
        if progress is not None:
            progress(number + 1)
    return data


def _scene_record(picture: Picture, scene: Any, example: Example) -> Record:
    record = make_record(str(picture), picture, scene.image.size, example.prompt, [example.answer], own_tags=False)
    things = left_to_right(scene.objects)
    if example.tag in ("<OD>", "<DENSE_REGION_CAPTION>"):
        return with_boxes(record, [thing.box for thing in things])
    return record
