"""From the tokens that a search has generated to what a caller gets: events, and the result. Knows nothing of models or threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from florence2.engine.search import Generated
from florence2.results import FoundObject, Result, Usage
from florence2.sources import Source
from florence2.tasks.answer import found_objects, interpret
from florence2.tasks.prompt import Prompt
from florence2.tasks.reader import AnswerReader, Part
from florence2.tasks.tokenizer import Tokenizer


@dataclass(frozen=True)
class Interpreter:
    """Reads the answer to one request; called with all that was generated, it makes the result.

    Attributes:
        prompt: the request's prompt.
        tokenizer: the checkpoint's tokenizer.
        image_size: width and height of the original image in pixels.
        banned_phrases: labels that grounding leaves out: the checkpoint's list.
        scores: whether the result gets a score per object.
        source: what the result refers to, to draw itself; None where it keeps no image.
        usage: what the request takes but for the tokens of its answer; None where that is not known.
    """

    prompt: Prompt
    tokenizer: Tokenizer
    image_size: tuple[int, int]
    banned_phrases: frozenset[str]
    scores: bool = False
    source: Source | None = None
    usage: Usage | None = None

    def __call__(self, generated: Generated, reader: AnswerReader | None = None) -> Result:
        """The result that the generated tokens mean; ``reader`` may have read them already."""
        result = interpret(
            self.prompt,
            token_ids=generated.token_ids,
            log_probabilities=generated.log_probabilities,
            tokenizer=self.tokenizer,
            image_size=self.image_size,
            finish_reason=generated.finish_reason,
            banned_phrases=self.banned_phrases,
            scores=self.scores,
            location_probabilities=generated.locations,
            reader=reader,
        )
        usage = self.usage and replace(self.usage, num_answer_tokens=len(generated.token_ids))
        return replace(result, usage=usage, _source=self.source)

    def reader(self) -> AnswerReader:
        """What reads the answer while it is generated."""
        return AnswerReader(self.prompt, self.tokenizer, self.banned_phrases, scores=self.scores)

    def objects(self, part: Part) -> Iterator[tuple[FoundObject, list[Any]]]:
        """The objects that a reader has found, each with its bins, as the result will have them."""
        return found_objects(self.prompt, part, self.image_size)
