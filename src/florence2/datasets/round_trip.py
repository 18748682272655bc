"""Whether an answer, learnt to the letter, would be read as what it says.

In: an answer of a data set with its question, and later the tokenizer of the model that shall learn it. Out: nothing, or what of
it would be lost. Every answer is read by the grammar that reads what models write, so that data sets can't teach what nobody
could read: labels with ``<`` or a location in them, labels of two lines, locations without a label. Knows no files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from florence2.errors import DatasetError
from florence2.location_bins import NUM_BINS
from florence2.tasks.parsing import Found, find_objects
from florence2.tasks.prompt import Prompt, shortened
from florence2.tasks.table import TASKS, Grammar
from florence2.tasks.tokenizer import Tokenizer
from florence2.tasks.vocabulary import STRUCTURAL, location_token

_LOCATION = re.compile(r"<loc_([^<>]*)>")
_PALIGEMMA = re.compile(r"<loc[0-9]{4}>")
_SEPARATORS = re.compile(r"<poly>|</poly>|<sep>")
_TAKEN = "\0"
# What is just beyond the last bin: exporters that divide by the side and do not clip write it at the right and lower edge.
_BEYOND, _LAST = location_token(NUM_BINS), location_token(NUM_BINS - 1)
_NUM_LOCATIONS: dict[Grammar, int] = {"labelled_boxes": 4, "bare_boxes": 4, "phrase_boxes": 4, "quads": 8}
_WITHOUT_LABELS: tuple[Grammar, ...] = ("bare_boxes", "polygons")


def grammar_of(question: Prompt) -> Grammar:
    """How the answer to a question is written down."""
    return TASKS[question.tag].grammar if question.tag else "text"


def at_the_edge(text: str) -> tuple[str, bool]:
    """The text with ``<loc_1000>``, the edge itself, as the last bin; and whether there was any."""
    return text.replace(_BEYOND, _LAST), _BEYOND in text


def check_answer(answer: str, question: Prompt) -> None:
    """Refuse an answer that the question's task can't have, or that would be read as something else.

    Raises:
        DatasetError: what is wrong with it.
    """
    _check_tokens(answer)
    grammar = grammar_of(question)
    if not answer.strip() or grammar == "text":
        return
    _check_runs(answer, grammar)
    _check_nothing_is_lost(answer, grammar)


def check_survival(answer: str, question: Prompt, tokenizer: Tokenizer, banned_phrases: frozenset[str] = frozenset()) -> str | None:
    """What an answer would be read as, where a model's own tokens can't say it; None where they can.

    Args:
        answer: one that ``check_answer`` passes.
        question: what it answers.
        tokenizer: the model's.
        banned_phrases: labels that grounding by this model leaves out.
    """
    grammar = grammar_of(question)
    said = tokenizer.decode(tokenizer.encode(answer)[1:-1])
    if grammar == "text":
        is_said = said.strip() == answer.strip()
        return None if is_said else f"in this model's tokens the answer {shortened(answer)} reads {shortened(said)}; write it otherwise"
    meant, read = _things(find_objects(grammar, answer)), _things(find_objects(grammar, said, banned_phrases))
    if meant == read:
        return None
    lost = next((label for label, bins in meant if (label, bins) not in read), said)
    return f"the label {shortened(lost)} is not read back from this model's tokens; write it otherwise"


def _things(found: Sequence[Found]) -> list[tuple[str, list[int]]]:
    return [(item.label, item.bins) for item in found]


def _check_tokens(answer: str) -> None:
    try:
        answer.encode("utf-8")
    except UnicodeEncodeError:
        raise DatasetError("the answer holds half a surrogate pair, which is no character; write valid Unicode") from None
    for token in STRUCTURAL:
        if token in answer:
            raise DatasetError(f"the answer must not hold {token}, which is added by itself; leave it out")
    if (other := _PALIGEMMA.search(answer)) is not None:
        raise DatasetError(f"the answer holds {other[0]}, a location as PaliGemma writes it; export it for Florence-2, or as COCO")
    for found in _LOCATION.findall(answer):
        if not re.fullmatch(r"0|[1-9][0-9]{0,2}", found):
            raise DatasetError(
                f"the answer holds <loc_{found[:20]}>; locations are <loc_0> to <loc_{NUM_BINS - 1}>, thousandths of the image"
            )


def _check_runs(answer: str, grammar: Grammar) -> None:
    """Check that locations come by fours or eights, or as outlines of at least three corners, and that x1 ≤ x2 and y1 ≤ y2 in boxes."""
    runs = [[int(number) for number in _LOCATION.findall(run)] for run in re.findall(r"(?:<loc_\d+>)+", answer)]
    if not runs:
        raise DatasetError(f"this task answers with places, and the answer {shortened(answer)} has none")
    if grammar in ("labelled_boxes", "quads") and answer.startswith("<loc_"):
        raise DatasetError(f"this task answers with a label before each place, and the answer {shortened(answer)} begins with a place")
    size = _NUM_LOCATIONS.get(grammar, 4 if grammar == "boxes_or_polygons" and "<poly>" not in answer else None)
    lengths = [len(run) for run in runs]
    if size is not None and any(length % size for length in lengths):
        wrong = next(length for length in lengths if length % size)
        raise DatasetError(f"this task answers with {size} locations behind each label, got {wrong}")
    if size is None and any(length % 2 or length < 6 for length in lengths):
        wrong = ", ".join(str(length) for length in lengths if length % 2 or length < 6)
        raise DatasetError(f"an outline is at least three pairs of x and y, got {wrong} locations")
    if size == 4:
        for box in (run[start : start + 4] for run in runs for start in range(0, len(run), 4)):
            if box[0] > box[2] or box[1] > box[3]:
                raise DatasetError(f"a box is x1, y1, x2, y2 with x1 ≤ x2 and y1 ≤ y2, got the locations {box}")


def _check_nothing_is_lost(answer: str, grammar: Grammar) -> None:
    """Check that every character belongs to a label, to a location or to a separator."""
    lost = _lost(answer, grammar)
    if lost and not _lost(answer.replace("\n", " "), grammar):
        raise DatasetError(
            f"a label is one line, and {shortened(lost)} would be lost of the answer {shortened(answer)}; "
            "write a space for the line break, or give each line a place of its own"
        )
    if lost:
        why = 'a label holds no "<" and no special token'
        if grammar in _WITHOUT_LABELS:
            why = "this task names nothing"
        elif lost.startswith("<loc_"):
            why = "a label stands before each place"
        raise DatasetError(f"{shortened(lost)} would be lost of the answer {shortened(answer)}: {why}; write it otherwise")
    if grammar not in _WITHOUT_LABELS and any(not item.label for item in find_objects(grammar, answer)):
        raise DatasetError(f"a label is empty in the answer {shortened(answer)}; this task names each place")


def _lost(answer: str, grammar: Grammar) -> str:
    """What of an answer no object holds when it is read; empty where all is held."""
    characters = list(answer)
    for item in find_objects(grammar, answer):
        for start, end in (item.label_span, *item.location_spans):
            characters[start:end] = _TAKEN * (end - start)
    return " ".join(_SEPARATORS.sub("", "".join(characters)).replace(_TAKEN, " ").split())
