"""Data sets from where users have them: JSONL, COCO detection, our own scenes.

In: a name: a `.jsonl` file, a COCO `.json` file, or ``synthetic:COUNT?seed=…``. Out: a `DataSet` of checked records. Every line
and annotation is looked at, so that what is wrong is known before anything long begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from florence2.errors import DatasetError, Florence2Error
from florence2.tasks.prompt import build_prompt, prompt_in_one, shortened
from florence2.tasks.table import TASKS
from florence2.training.demo import IMAGE_SIZE, WORLD
from florence2.training.placement import Box
from florence2.training.records import (
    DataSet,
    Picture,
    Problem,
    Record,
    ScenePicture,
    check_box,
    is_number,
    make_record,
    read_picture,
    with_boxes,
    write_boxes,
)
from florence2.training.scenes import SceneOptions
from florence2.training.shapes import KINDS
from florence2.training.targets import Example, left_to_right, make_targets

SYNTHETIC = "synthetic:"
FIRST_FREE_SEED = 1_000_000
"""Scenes under this seed and those after it are never learnt from."""
OPTIONS = ("seed", "size", "kinds", "objects", "words", "tasks")

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
        name: a `.jsonl` file, a COCO detection `.json` file, or ``synthetic:COUNT?seed=…``.
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
    path = Path(name)
    if not path.is_file():
        raise DatasetError(f"there is no data set {name!r}: expected a .jsonl file, a COCO .json file, or {SYNTHETIC}COUNT?seed=S")
    folder = images or path.parent
    if path.suffix.lower() == ".json":
        return _coco(path, folder, prompt, limit, progress)
    return _jsonl(path, folder, own_tags, answered, limit, progress)


def _jsonl(path: Path, folder: Path, own_tags: bool, answered: bool, limit: int | None, progress: Progress | None) -> DataSet:
    """One JSON object a line: image, prompt (or prefix), answer (or suffix), or objects in pixels."""
    data, sizes = DataSet(str(path)), {}
    pictures: set[Picture] = set()
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            record = _jsonl_record(where, line, folder, own_tags, answered, sizes)
        except Florence2Error as error:
            data.problems.append(Problem(where, error.message))
            continue
        pictures.add(record.picture)
        if limit is not None and len(pictures) > limit:
            break
        data.records.append(record)
        if progress is not None:
            progress(len(sizes))
    return data


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error


def _jsonl_record(where: str, line: bytes, folder: Path, own_tags: bool, answered: bool, sizes: dict[Path, Any]) -> Record:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"not UTF-8 (byte {error.start} of the line is {line[error.start]:#x}); save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"no JSON ({error})") from None
    if not isinstance(fields, dict):
        raise DatasetError(f"expected an object with image, prompt and answer, got {type(fields).__name__}")
    prompt = _text(fields, "prompt", "prefix")
    picture = folder / _text(fields, "image")
    size = read_picture(picture, sizes)
    beside = {name: fields[name] for name in ("text", "region") if fields.get(name) is not None}
    if beside:  # as in requests
        prompt = prompt_in_one(prompt, **beside, image_size=size, allow_unknown_tag=own_tags)
    if fields.get("objects") is not None:
        return _objects_record(where, picture, size, prompt, fields["objects"], own_tags)
    answer = fields["answer"] if fields.get("answer") is not None else fields.get("suffix")
    if answer is None and not answered:
        return make_record(where, picture, size, prompt, [], own_tags=own_tags)
    answers = [answer] if isinstance(answer, str) else answer
    if not isinstance(answers, list) or not answers or not all(isinstance(text, str) for text in answers):
        raise DatasetError(f"expected answer as a text or a list of texts (or objects with label and box), got {shortened(answer)}")
    return make_record(where, picture, size, prompt, answers, own_tags=own_tags)


def _objects_record(where: str, picture: Path, size: tuple[int, int], prompt: str, objects: Any, own_tags: bool) -> Record:
    if not isinstance(objects, list) or not all(isinstance(thing, dict) for thing in objects):
        raise DatasetError(f"expected objects as a list of objects with label and box, got {shortened(objects)}")
    things = [(_text(thing, "label"), check_box(thing.get("box"), size)) for thing in objects]
    record = make_record(where, picture, size, prompt, [write_boxes(things, size)], own_tags=own_tags)
    if record.question.kind not in ("boxes", "boxes_or_polygons"):
        raise DatasetError(f"objects go with a task that answers with boxes, such as <OD>; the prompt is {prompt!r}")
    return with_boxes(record, [box for _, box in things])


def _text(fields: Mapping[str, Any], key: str, other: str = "") -> str:
    value = fields[key] if fields.get(key) is not None else fields.get(other)
    if not isinstance(value, str) or not value:
        raise DatasetError(f"expected {key} as a text, got {'nothing' if value is None else shortened(value)}")
    return value


def _coco(path: Path, folder: Path, prompt: str, limit: int | None, progress: Progress | None) -> DataSet:
    """COCO's detection format: one record a picture, with all its boxes from left to right."""
    content = _coco_content(path)
    data, sizes = DataSet(str(path)), {}
    names = {entry["id"]: entry["name"] for entry in content["categories"] if _has(entry, id=int, name=str)}
    if prompt not in ("<OD>", "<OPEN_VOCABULARY_DETECTION>"):
        raise DatasetError(
            f"a COCO file answers <OD> or <OPEN_VOCABULARY_DETECTION>, which asks for all its classes; got {shortened(prompt)}"
        )
    question = prompt if prompt != "<OPEN_VOCABULARY_DETECTION>" else prompt + "<and>".join(names.values())
    build_prompt(question)
    annotations = _coco_annotations(path.name, content, names, data.problems)
    seen: set[int] = set()
    for index, image in enumerate(content["images"][:limit]):
        try:
            if not _has(image, id=int, file_name=str):
                raise DatasetError("expected id as a whole number and file_name as a text")
            if image["id"] in seen:
                raise DatasetError("its id is that of an image before it")
            seen.add(image["id"])
            picture = folder / image["file_name"]
            size = read_picture(picture, sizes)
            _check_size(image, size)
            things, crowds, unsound = _coco_things(path.name, annotations.get(image["id"], ()), names, size)
            data.problems += unsound
            record = make_record(f"{path.name}: image {image['id']}", picture, size, question, [write_boxes(things, size)], own_tags=False)
            data.records.append(with_boxes(record, [box for _, box in things], crowds))
        except Florence2Error as error:
            data.problems.append(Problem(f"{path.name}: image {_id(image, index)}", error.message))
        if progress is not None:
            progress(len(sizes))
    return data


def _check_size(image: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Boxes of a picture of another size, or of one that was not turned upright, would lie in wrong places."""
    told = (image.get("width", size[0]), image.get("height", size[1]))
    if told != size:
        turned = "; its EXIF data turn it, so that boxes must be those of the turned picture" if told == size[::-1] else ""
        raise DatasetError(f"its file has {size[0]} x {size[1]} pixels, and the data set says {told[0]} x {told[1]}{turned}")


def _coco_annotations(
    file: str, content: Mapping[str, list[Any]], names: Mapping[int, str], problems: list[Problem]
) -> dict[int, list[dict[str, Any]]]:
    """Annotations by their picture; those that belong nowhere are added to the problems."""
    known = {entry["id"] for entry in content["images"] if _has(entry, id=int)}
    found: dict[int, list[dict[str, Any]]] = {}
    for index, annotation in enumerate(content["annotations"]):
        where = f"{file}: annotation {_id(annotation, index)}"
        if not _has(annotation, image_id=int, category_id=int) or annotation["image_id"] not in known:
            problems.append(Problem(where, "its image_id is that of no image"))
        elif annotation["category_id"] not in names:
            problems.append(Problem(where, "its category_id is that of no category"))
        else:
            found.setdefault(annotation["image_id"], []).append({**annotation, "id": _id(annotation, index)})
    return found


def _coco_things(
    file: str, annotations: Iterable[Mapping[str, Any]], names: Mapping[int, str], size: tuple[int, int]
) -> tuple[list[tuple[str, Box]], list[tuple[str, Box]], list[Problem]]:
    """Names and boxes from left to right, those of crowds, and what is wrong with the others."""
    things: list[tuple[str, Box]] = []
    crowds: list[tuple[str, Box]] = []
    problems = []
    for annotation in annotations:
        box = _coco_box(annotation.get("bbox"), size)
        if isinstance(box, str):
            problems.append(Problem(f"{file}: annotation {annotation['id']}", box))
        else:
            (crowds if annotation.get("iscrowd") else things).append((names[annotation["category_id"]], box))
    return sorted(things, key=lambda thing: thing[1][:2]), crowds, problems


def _coco_content(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is no JSON ({error})") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        raise DatasetError(f"{path} is no COCO detection file: expected an object with the lists {', '.join(parts)}")
    return content


def _coco_box(bbox: Any, size: tuple[int, int]) -> Box | str:
    """A box x1, y1, x2, y2, or what is wrong with it."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        return f"expected bbox as x, y, width, height in pixels, got {shortened(bbox)}"
    x, y, width, height = bbox
    try:
        return check_box([x, y, x + width, y + height], size)
    except DatasetError as error:
        return error.message


def _has(entry: Any, **types: type) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in types.items())


def _id(entry: Any, index: int) -> str:
    return str(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"number {index + 1} of the list"


def parse_synthetic(name: str, *, default_seed: int) -> SyntheticSpec:
    """``synthetic:COUNT?seed=S&size=P&kinds=A,B&objects=1-8&words=0-2&tasks=OD,OCR`` taken apart.

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
            num_objects=_range(given.get("objects"), WORLD.num_objects),
            num_words=_range(given.get("words"), WORLD.num_words),
            kinds=kinds,
        )
        spec = SyntheticSpec(int(count), int(given.get("seed", default_seed)), int(given.get("size", IMAGE_SIZE)), tags, options)
    except ValueError as error:
        raise DatasetError(f"{name}: {error}") from None
    if spec.count < 1 or spec.seed < 0 or not 64 <= spec.size <= 4096:
        raise DatasetError(f"{name}: expected at least one scene, a seed of at least 0 and a size from 64 to 4096 pixels")
    return spec


def _range(text: str | None, default: tuple[int, int]) -> tuple[int, int]:
    if text is None:
        return default
    low, _, high = text.partition("-")
    return int(low), int(high or low)


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
