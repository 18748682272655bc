"""Data sets of scenes: ``synthetic:COUNT?seed=…``.

In: such a name. Out: a ``DataSet`` whose pictures are drawn when they are opened. Scene number N of a seed is the same whatever the
count. Scenes to be trained on and scenes to be evaluated on have seeds of their own. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from florence2.datasets.record import DataSet, Record, make_record, with_boxes
from florence2.errors import DatasetError
from florence2.scenes.scene import Scene, SceneOptions, draw_scene
from florence2.scenes.shapes import KINDS
from florence2.scenes.targets import Example, left_to_right, make_targets
from florence2.scenes.world import IMAGE_SIZE, WORLD
from florence2.tasks.table import TASKS

PREFIX = "synthetic:"
FIRST_FREE_SEED = 1_000_000
"""Scenes of this seed and those after it are never trained on."""
OPTIONS = ("seed", "size", "kinds", "objects", "smallest", "words", "tasks")


@dataclass(frozen=True)
class ScenePicture:
    """A picture that is drawn when it is opened.

    Attributes:
        seed: of the data set.
        number: of the scene in it.
        size: side in pixels.
        options: what the scene may hold.
    """

    seed: int
    number: int
    size: int
    options: SceneOptions

    def draw(self) -> tuple[Scene, np.random.Generator]:
        """The scene, and the generator that drew it."""
        rng = np.random.default_rng([self.seed, self.number])
        return draw_scene(rng, size=self.size, options=self.options), rng

    def open(self) -> Image.Image:
        """The picture in RGB."""
        return self.draw()[0].image

    def __str__(self) -> str:
        return f"scene {self.number} of seed {self.seed}"


@dataclass(frozen=True)
class SyntheticSpec:
    """``synthetic:COUNT?seed=S&…`` taken apart.

    Attributes:
        count: scenes.
        seed: of the whole set; scene number N is the same whatever the count.
        size: side of a scene in pixels.
        tags: the tasks of the questions.
        options: what scenes may hold.
    """

    count: int
    seed: int
    size: int
    tags: tuple[str, ...]
    options: SceneOptions


def parse_synthetic(name: str, *, default_seed: int) -> SyntheticSpec:
    """``synthetic:COUNT?seed=S&size=P&kinds=A,B&objects=1-8&smallest=0.1&words=0-2&tasks=OD,OCR`` taken apart.

    Raises:
        DatasetError: an option that there is not, or a value that it can't have.
    """
    count, _, query = name.removeprefix(PREFIX).partition("?")
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


def read_synthetic(
    name: str, *, limit: int | None = None, progress: Callable[[int], None] | None = None, for_training: bool = True
) -> DataSet:
    """The scenes of that name, with one question for each task that a scene has an answer to.

    Args:
        name: as in ``parse_synthetic``.
        limit: at most so many scenes; None is all.
        progress: called with the number of scenes drawn so far.
        for_training: whether the scenes are trained on, which decides the seeds that they may have.

    Raises:
        DatasetError: the name is invalid, or its seed is not one for this purpose.
    """
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


def _scene_record(picture: ScenePicture, scene: Scene, example: Example) -> Record:
    record = make_record(str(picture), picture, scene.image.size, example.prompt, [example.answer], own_tags=False)
    things = left_to_right(scene.objects)
    if example.tag in ("<OD>", "<DENSE_REGION_CAPTION>"):
        return with_boxes(record, [thing.box for thing in things])
    return record
