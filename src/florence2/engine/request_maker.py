"""From a picture and prompts to requests for the scheduler: preprocessed, sharing one image, each with its search and its interpreter.

In: an RGB picture and tokenized prompts, checked already. Out: a ``Request`` for each prompt. Knows nothing of threads and files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from florence2.answer_events import OnEvent
from florence2.engine.answer import Interpreter
from florence2.engine.decided import Reporter
from florence2.engine.image_cache import ImageCache
from florence2.engine.request import Request, start_search
from florence2.engine.search import SpecialTokens
from florence2.errors import InvalidImage
from florence2.images import ImageInput, read_image
from florence2.images.resized import ResizedPicture, resize
from florence2.request_options import GenerationOptions
from florence2.results import Result, Usage
from florence2.sources import Source, remember
from florence2.tasks.tokenized_prompt import TokenizedPrompt
from florence2.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from florence2.model.adapters import ModelAdapter
    from florence2.weights.checkpoint import Checkpoint
    from florence2.weights.defaults import GenerationDefaults


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
        picture: Image | ResizedPicture,
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
            picture: in RGB, or at the model's size already.
            prompts: the prompts, tokenized.
            generation: how all of them are searched.
            scores: whether found objects get scores.
            fair_key: on whose account the requests stand.
            source: what their results refer to; None for no image.
            on_event: called with their events.
            adapter: what answers; None for the base.

        Raises:
            InvalidRegion: a prompt's region is not inside the picture.
            InvalidImage: a picture at another size than the model's.
        """
        prompt_ids = [prompt.bound_ids(picture.size) for prompt in prompts]
        shared = self.images.share(self._pixels(picture), adapter)
        is_cached = shared.features is not None
        requests: list[Request[Result]] = []
        for index, (prompt, ids) in enumerate(zip((given.prompt for given in prompts), prompt_ids, strict=True)):
            usage = Usage(self.num_image_tokens + len(ids), self.num_image_tokens, 0, is_cached)
            answer = Interpreter(prompt, self.tokenizer, picture.size, self.checkpoint.banned_phrases, scores, source, usage)
            locations = self.tokenizer.location_ids if scores and prompt.kind != "text" else ()
            search = start_search(generation, special_tokens(self.checkpoint.generation), locations)
            request = Request(shared, ids, search, answer, fair_key=fair_key, adapter=adapter)
            if on_event:
                reporter = Reporter(search, answer, on_event, index)
                request.on_step, request.interpret = reporter.report, reporter.result
            requests.append(request)
        return requests

    def _pixels(self, picture: Image | ResizedPicture) -> NDArray[np.uint8]:
        """The picture at the model's size."""
        settings = self.checkpoint.image
        if not isinstance(picture, ResizedPicture):
            return resize(picture, settings)
        pixels, shape = picture.pixels, (settings.height, settings.width, 3)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise InvalidImage(f"a resized picture must be uint8 of shape {shape} for this model, got {pixels.dtype} of {pixels.shape}")
        return pixels


def special_tokens(generation: GenerationDefaults) -> SpecialTokens:
    """The ids that steer a generation, of a checkpoint's settings."""
    return SpecialTokens(
        start=generation.decoder_start_token_id,
        eos=generation.eos_token_id,
        forced_bos=generation.forced_bos_token_id,
        forced_eos=generation.forced_eos_token_id,
    )


def read_picture(image: ImageInput | ResizedPicture, auto_orient: bool, keep_image: bool) -> tuple[Image | ResizedPicture, Source | None]:
    """The picture of a request, and what its results refer to."""
    if isinstance(image, ResizedPicture):
        return image, None
    source: Source | None = remember(image, auto_orient)
    picture = read_image(image, auto_orient=auto_orient)
    return picture, source if keep_image else source.without_image()
