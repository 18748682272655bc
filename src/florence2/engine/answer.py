"""From the tokens that a search has generated to the result that a caller gets. Knows nothing of models or threads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from florence2.engine.search import Generated
from florence2.results import Result
from florence2.sources import Source
from florence2.tasks.answer import interpret
from florence2.tasks.prompt import Prompt
from florence2.tasks.tokenizer import Tokenizer


@dataclass(frozen=True)
class Interpreter:
    """Makes the result of one request; called with what was generated.

    Attributes:
        prompt: the request's prompt.
        tokenizer: the checkpoint's tokenizer.
        image_size: width and height of the original image in pixels.
        banned_phrases: labels that grounding leaves out: the checkpoint's list.
        scores: whether the result gets a score per object.
        source: what the result refers to, to draw itself; None where it keeps no image.
    """

    prompt: Prompt
    tokenizer: Tokenizer
    image_size: tuple[int, int]
    banned_phrases: frozenset[str]
    scores: bool = False
    source: Source | None = None

    def __call__(self, generated: Generated) -> Result:
        """The result that the generated tokens mean."""
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
        )
        return replace(result, _source=self.source)
