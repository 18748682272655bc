"""From a picture and prompts to requests for the scheduler: preprocessed, sharing one image, each with its search and its interpreter.

In: an RGB picture and tokenized prompts, checked already. Out: a ``Request`` for each prompt. Knows nothing of threads and files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from florence2.answer_events import OnEvent
from florence2.engine.answer import Interpreter
from florence2.engine.decided import Reporter
from florence2.engine.image_cache import ImageCache
from florence2.engine.preprocess import normalise
from florence2.engine.request import Request, start_search
from florence2.engine.search import SpecialTokens
from florence2.images.resized import resize
from florence2.request_options import GenerationOptions
from florence2.results import Result, Usage
from florence2.sources import Source
from florence2.tasks.tokenized_prompt import TokenizedPrompt
from florence2.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from florence2.model.adapters import ModelAdapter
    from florence2.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class RequestMaker:
    """Makes the requests of one engine.

    Attributes:
        checkpoint: its checkpoint.
        tokenizer: the checkpoint's tokenizer.
        images: the encoded images that it keeps.
        num_image_tokens: how many tokens an image has.
    """

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    images: ImageCache
    num_image_tokens: int

    def make(
        self,
        picture: Image,
        prompts: Sequence[TokenizedPrompt],
        generation: GenerationOptions,
        *,
        scores: bool,
        fair_key: str,
        source: Source | None = None,
        on_event: OnEvent | None = None,
        adapter: ModelAdapter | None = None,
    ) -> list[Request[Result]]:
        """One request for each prompt; they share the picture.

        Args:
            picture: in RGB.
            prompts: the prompts, tokenized.
            generation: how all of them are searched.
            scores: whether found objects get scores.
            fair_key: on whose account the requests stand.
            source: what their results refer to; None for no image.
            on_event: called with their events.
            adapter: what answers; None for the base.

        Raises:
            InvalidRegion: a prompt's region is not inside the picture.
        """
        prompt_ids = [prompt.bound_ids(picture.size) for prompt in prompts]
        resized = resize(picture, self.checkpoint.image)
        shared = self.images.share(resized, partial(normalise, resized, self.checkpoint.image), adapter)
        is_cached = shared.features is not None
        requests: list[Request[Result]] = []
        for index, (prompt, ids) in enumerate(zip((given.prompt for given in prompts), prompt_ids, strict=True)):
            usage = Usage(self.num_image_tokens + len(ids), self.num_image_tokens, 0, is_cached)
            answer = Interpreter(prompt, self.tokenizer, picture.size, self.checkpoint.banned_phrases, scores, source, usage)
            locations = self.tokenizer.location_ids if scores and prompt.kind != "text" else ()
            search = start_search(generation, self._special_tokens, locations)
            request = Request(shared, ids, search, answer, fair_key=fair_key, adapter=adapter)
            if on_event:
                reporter = Reporter(search, answer, on_event, index)
                request.on_step, request.interpret = reporter.report, reporter.result
            requests.append(request)
        return requests

    @property
    def _special_tokens(self) -> SpecialTokens:
        defaults = self.checkpoint.generation
        return SpecialTokens(
            start=defaults.decoder_start_token_id,
            eos=defaults.eos_token_id,
            forced_bos=defaults.forced_bos_token_id,
            forced_eos=defaults.forced_eos_token_id,
        )
