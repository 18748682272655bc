"""What a scene answers to each of the fifteen tasks, in the words and location tokens that the model shall generate.

In: a ``Scene`` and a random generator, which chooses among the questions that a scene allows (which phrase, which region),
never the answer. Out: ``Example``s by task tag, their answers without the ``<s>`` and ``</s>`` that the tokenizer adds.

One rule makes each answer the only right one: things stand **from left to right**, by the left edge of their boxes (the upper
one first where two are level). That is the order of the first location token of each thing, so that a model which has just
written one thing knows where the next one may begin. Only plain OCR reads in lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from florence2.datasets.boxes import Box
from florence2.scenes.palette import COLOURS
from florence2.scenes.scene import Scene, SceneObject, SceneWord
from florence2.scenes.shapes import KINDS
from florence2.tasks import TASKS, expand_prompt
from florence2.tasks.coordinates import quantize
from florence2.tasks.vocabulary import location_token

_ABSENT_RATE = 0.15
_JOINED_RATE = 0.2
_SHUFFLED_RATE = 0.5
_LOOSE_RATE = 0.5
_LOOSENESS = 0.06
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "middle", "right")


@dataclass(frozen=True)
class Example:
    """One question to a picture and its answer.

    Attributes:
        tag: the task, such as "<OD>".
        text: what follows the tag: a phrase, a caption, a region as location tokens, or nothing.
        answer: what the model shall generate, without ``<s>`` and ``</s>``.
    """

    tag: str
    text: str
    answer: str

    @property
    def prompt(self) -> str:
        """The tag and what follows it, as a user writes it."""
        return self.tag + self.text

    @property
    def sentence(self) -> str:
        """The sentence that the model sees."""
        return expand_prompt(self.prompt)


def make_targets(scene: Scene, rng: np.random.Generator) -> dict[str, list[Example]]:
    """The examples of a scene by task tag.

    All fifteen tags are there. A list is empty only where the scene has nothing to ask about (no shape, no word, no shape
    that a phrase could single out). The lists of the region tasks have one example per shape or word.
    """
    objects, words = left_to_right(scene.objects), left_to_right(scene.words)
    size = scene.image.size
    examples: dict[str, list[Example]] = {tag: [] for tag in TASKS}
    for tag, answer in _whole_picture(scene, objects, words).items():
        examples[tag].append(Example(tag, "", answer))
    if objects:
        examples["<CAPTION_TO_PHRASE_GROUNDING>"].append(_grounding(objects, size, rng))
        examples["<OPEN_VOCABULARY_DETECTION>"].append(_detection(objects, size, rng))
    for thing in objects:
        phrases = _singling_phrases(thing, objects)
        outline = _polygon(thing, size)
        if phrases:
            tag = "<REFERRING_EXPRESSION_SEGMENTATION>"
            examples[tag].append(Example(tag, phrases[int(rng.integers(len(phrases)))], outline))
        region = locations(_loosened(thing.box, size, rng), size)
        # The published checkpoints write the region again behind what they call it, and clients read it there.
        for tag, answer in (
            ("<REGION_TO_SEGMENTATION>", outline),
            ("<REGION_TO_CATEGORY>", thing.label + region),
            ("<REGION_TO_DESCRIPTION>", _described(thing) + region),
        ):
            examples[tag].append(Example(tag, region, answer))
    for word in words:
        region = _loosened(word.box, size, rng)
        examples["<REGION_TO_OCR>"].append(Example("<REGION_TO_OCR>", locations(region, size), word.text))
    return examples


def locations(values: Sequence[float], size: tuple[int, int]) -> str:
    """Location tokens for alternating x and y in pixels of a picture of ``size`` (width, height): thousandths, floored."""
    return "".join(location_token(number) for number in quantize(values, size))


def left_to_right(things: Iterable) -> list:
    """The shapes or words by the left edge of their boxes; of two with the same edge, the upper one first."""
    return sorted(things, key=lambda thing: (thing.box[0], thing.box[1]))


def reading_order(words: Iterable[SceneWord]) -> list[SceneWord]:
    """The words line by line.

    A word belongs to a line as long as its middle lies within the height of the line's topmost word.
    """
    lines: list[list[SceneWord]] = []
    for word in sorted(words, key=_middle):
        if lines and _middle(word) < lines[-1][0].box[3]:
            lines[-1].append(word)
        else:
            lines.append([word])
    return [word for line in lines for word in left_to_right(line)]


def _middle(word: SceneWord) -> float:
    return (word.box[1] + word.box[3]) / 2


def _whole_picture(scene: Scene, objects: Sequence[SceneObject], words: Sequence[SceneWord]) -> dict[str, str]:
    """The answers to the tasks that need only the picture."""
    size = scene.image.size
    return {
        "<CAPTION>": _caption(objects, words),
        "<DETAILED_CAPTION>": _detailed_caption(scene, objects, words),
        "<MORE_DETAILED_CAPTION>": _paragraph(scene, objects),
        "<OCR>": " ".join(word.text for word in reading_order(scene.words)),
        "<OCR_WITH_REGION>": "".join(word.text + locations(word.quad, size) for word in words),
        "<OD>": "".join(thing.label + locations(thing.box, size) for thing in objects),
        "<DENSE_REGION_CAPTION>": "".join(f"{thing.size_word} {thing.label}" + locations(thing.box, size) for thing in objects),
        "<REGION_PROPOSAL>": "".join(locations(thing.box, size) for thing in left_to_right([*objects, *words])),
    }


def _listed(phrases: Sequence[str]) -> str:
    """The phrases as a list in English: "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _count(number: int) -> str:
    return _COUNTS[number] if number < len(_COUNTS) else str(number)


def _named(thing: SceneObject) -> str:
    return f"{_article(thing.colour)} {thing.label}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _described(thing: SceneObject) -> str:
    return f"a {thing.size_word} {thing.label}"


def _place(box: Box, size: tuple[int, int]) -> str:
    """The position of a box's centre on a grid of three by three: "at the top left", "in the middle"."""
    column = _COLUMNS[min(2, int((box[0] + box[2]) / 2 * 3 // size[0]))]
    row = _ROWS[min(2, int((box[1] + box[3]) / 2 * 3 // size[1]))]
    if row == column:
        return "in the middle"
    if row == "middle":
        return f"on the {column}"
    return f"at the {row}" if column == "middle" else f"at the {row} {column}"


def _caption(objects: Sequence[SceneObject], words: Sequence[SceneWord]) -> str:
    if objects:
        return _listed([_named(thing) for thing in objects])
    if words:
        return "a printed word" if len(words) == 1 else f"{_count(len(words))} printed words"
    return "an empty background"


def _detailed_caption(scene: Scene, objects: Sequence[SceneObject], words: Sequence[SceneWord]) -> str:
    size = scene.image.size
    things = [f"{_described(thing)} {_place(thing.box, size)}" for thing in objects]
    return f"{_listed(things or [_caption(objects, words)])}, on a {scene.background} background"


def _paragraph(scene: Scene, objects: Sequence[SceneObject]) -> str:
    size = scene.image.size
    shapes = f"{_count(len(objects))} shape" + ("" if len(objects) == 1 else "s")
    sentences = [f"The picture shows {shapes} on a {scene.background} background."]
    sentences += [f"There is {_described(thing)} {_place(thing.box, size)}." for thing in objects]
    sentences += [f"The word {word.text} is printed {_place(word.box, size)}." for word in reading_order(scene.words)]
    return " ".join(sentences)


def _grounding(objects: Sequence[SceneObject], size: tuple[int, int], rng: np.random.Generator) -> Example:
    """A caption and the box of each phrase: the scene's own caption, or some of its unique shapes in any order."""
    unique = [thing for thing in objects if _num_labelled(thing.label, objects) == 1]
    chosen = list(objects)
    if unique and rng.uniform() < _SHUFFLED_RATE:
        chosen = [unique[index] for index in rng.permutation(len(unique))[: int(rng.integers(1, len(unique) + 1))]]
    answer = "".join(_named(thing) + locations(thing.box, size) for thing in chosen)
    return Example("<CAPTION_TO_PHRASE_GROUNDING>", _caption(chosen, ()), answer)


def _detection(objects: Sequence[SceneObject], size: tuple[int, int], rng: np.random.Generator) -> Example:
    """One class, two classes joined by ``<and>``, or sometimes a class that is not in the picture; with all their boxes."""
    absent = sorted({f"{colour} {kind}" for colour in COLOURS for kind in KINDS} - {thing.label for thing in objects})
    classes = [_any_class(objects, rng)]
    if rng.uniform() < _ABSENT_RATE:
        classes = [absent[int(rng.integers(len(absent)))]]
    if rng.uniform() < _JOINED_RATE:
        other = _any_class(objects, rng)
        if not any(other in name or name in other for name in classes):
            classes.append(other)
    found = [name + locations(thing.box, size) for name in classes for thing in objects if name in (thing.label, thing.kind)]
    return Example("<OPEN_VOCABULARY_DETECTION>", "<and>".join(classes), "".join(found))


def _any_class(objects: Sequence[SceneObject], rng: np.random.Generator) -> str:
    thing = objects[int(rng.integers(len(objects)))]
    return thing.kind if rng.uniform() < 0.25 else thing.label


def _num_labelled(label: str, objects: Sequence[SceneObject]) -> int:
    return sum(thing.label == label for thing in objects)


def _singling_phrases(thing: SceneObject, objects: Sequence[SceneObject]) -> list[str]:
    """The phrases that mean this shape and no other on the picture."""
    phrases = []
    if _num_labelled(thing.label, objects) == 1:
        phrases += [thing.label, _named(thing), f"the {thing.label}"]
    if sum(other.kind == thing.kind for other in objects) == 1:
        phrases.append(f"the {thing.kind}")
    return phrases


def _polygon(thing: SceneObject, size: tuple[int, int]) -> str:
    return locations([value for point in thing.polygon for value in point], size)


def _loosened(box: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box as a user might draw it: half of the time exact, else with each edge moved a little."""
    if rng.uniform() >= _LOOSE_RATE:
        return box
    reach = (box[2] - box[0], box[3] - box[1])
    moved = [value + rng.uniform(-_LOOSENESS, _LOOSENESS) * reach[index % 2] for index, value in enumerate(box)]
    x1, y1, x2, y2 = (min(max(value, 0.0), float(size[index % 2])) for index, value in enumerate(moved))
    return x1, y1, x2, y2
