"""The running requests and the steps they take together.

``admit`` encodes what new requests need and gives them rows of the decoder's cache; ``step`` feeds every row its next
token, lets each search advance, and hands back the requests that are complete. Knows nothing of threads or queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from florence2.engine.request import Request, SharedImage, step_failure
from florence2.engine.search import best_tokens
from florence2.errors import EngineFailed
from florence2.model.adapters import ALL, ModelAdapter, Route, Routes, Routing, routes_of
from florence2.model.bart import EncodedPrompts
from florence2.model.cache import DecoderCache


class Model(Protocol):
    """What a batch needs of a model; ``florence2.model.florence2.Florence2`` is one."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The weights' floating-point type."""
        ...

    @property
    def routing(self) -> Routing:
        """Where the model looks up which adapters the entries of a pass go through."""
        ...

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Image tokens, ``[images, tokens, width]``."""
        ...

    def encode_prompt(self, image_features: Tensor, prompt_ids: Tensor, prompt_lengths: Sequence[int]) -> EncodedPrompts:
        """Encoded prompts, one for each entry of ``image_features``."""
        ...

    def new_cache(self, max_rows: int) -> DecoderCache:
        """An empty cache with room for so many rows."""
        ...

    def admit(self, cache: DecoderCache, encoded: EncodedPrompts, num_beams: Sequence[int]) -> None:
        """Add encoded prompts to the cache as new requests."""
        ...

    def decode_step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor:
        """Logits for the token after ``token_ids``, ``[rows, vocabulary]``."""
        ...


class Batch:
    """Requests that share decoder steps. Their order is that of the cache, which takes all its memory here, once."""

    def __init__(self, model: Model, max_rows: int) -> None:
        self.requests: list[Request[Any]] = []
        self._model = model
        self._cache = model.new_cache(max_rows)
        self._routes: Routes = ()

    @property
    def num_rows(self) -> int:
        """Rows that a step computes."""
        return sum(request.search.num_rows for request in self.requests)

    def encode(self, requests: Sequence[Request[Any]]) -> EncodedPrompts:
        """Encode the prompts of ``requests``, and first those of their images that are not encoded yet."""
        images = {id(request.image): request.image for request in requests if request.image.features is None}
        for adapter in {image.adapter: None for image in images.values()}:
            self._encode_images([image for image in images.values() if image.adapter is adapter], adapter)
        lengths = [len(request.prompt_ids) for request in requests]
        padded = [request.prompt_ids + [0] * (max(lengths) - len(request.prompt_ids)) for request in requests]
        features = torch.stack([request.image.features for request in requests if request.image.features is not None])
        with self._model.routing.over(routes_of([request.adapter for request in requests], self._model.device)):
            return self._model.encode_prompt(features, torch.tensor(padded, device=self._model.device), lengths)

    def _encode_images(self, images: Sequence[SharedImage], adapter: ModelAdapter | None) -> None:
        """Encode images in one pass; all of them go through the adapter, if there is one."""
        pixels = torch.stack([image.pixels for image in images if image.pixels is not None])
        with self._model.routing.over(() if adapter is None else (Route(adapter, ALL),)):
            encoded = self._model.encode_image(self._moved(pixels))
        for image, features in zip(images, encoded, strict=True):
            # A copy of its own: a view would keep the whole pass in memory for as long as one of its images is kept.
            image.features, image.pixels = features.clone() if len(images) > 1 else features, None

    def _moved(self, pixels: Tensor) -> Tensor:
        """The pixels on the model's device; on their way to a GPU from memory that it can read by itself, while other work goes on."""
        if self._model.device.type != "cuda":
            return pixels.to(self._model.device)
        return pixels.pin_memory().to(self._model.device, non_blocking=True)

    def admit(self, requests: Sequence[Request[Any]], encoded: EncodedPrompts) -> None:
        """Let ``requests`` take part from the next step on."""
        self.requests += requests
        self._note_routes()
        with self._model.routing.over(routes_of([request.adapter for request in requests], self._model.device)):
            self._model.admit(self._cache, encoded, [request.search.num_rows for request in requests])

    def _note_routes(self) -> None:
        """Work out the routes of the steps to come; they change only when requests enter or leave."""
        rows = [request.adapter for request in self.requests for _ in range(request.search.num_rows)]
        self._routes = routes_of(rows, self._model.device)

    def step(self) -> None:
        """One token for every row. Requests that are complete are answered and leave; so does one whose search fails."""
        if not self.requests:
            return
        searches = [request.search for request in self.requests]
        tokens = torch.tensor([token for search in searches for token in search.tokens])
        with self._model.routing.over(self._routes):
            logits = self._model.decode_step(tokens.to(self._model.device), self._cache)
        forced = sorted({token for search in searches for token in search.forced})
        banned = [tokens for search in searches for tokens in search.banned()]
        locations = next((search.locations for search in searches if search.locations), ())
        candidates = best_tokens(logits, max(search.num_candidates for search in searches), banned, forced, locations)
        parents: list[int] = []
        for request in self.requests:
            search, first_row = request.search, len(parents)
            try:
                search.advance(candidates.rows(first_row, search.num_rows))
            except EngineFailed as error:  # one request's numbers; the others' are valid
                request.fail(error)
            else:
                request.report_step(len(self.requests))
            is_over = search.answer is not None or request.is_settled
            parents += range(first_row, first_row + search.num_rows) if is_over else [first_row + parent for parent in search.parents]
        self._cache.reorder(parents)
        for request in self.requests:
            if request.search.answer is not None:
                request.answer(request.search.answer)
        self._leave_settled()

    def _leave_settled(self) -> None:
        """Free the rows of every request that is answered, failed or cancelled."""
        for request in self.requests:
            if request.is_cancelled:
                request.drop()
        staying = [index for index, request in enumerate(self.requests) if not request.is_settled]
        if len(staying) < len(self.requests):
            self._cache.keep(staying)
            self.requests = [self.requests[index] for index in staying]
            self._note_routes()

    def fail(self, error: BaseException) -> None:
        """Fail every request and begin anew: after a step that broke, the cache's content is not to be trusted."""
        for request in self.requests:
            request.fail(step_failure(error))
        self.requests, self._routes = [], ()
        self._cache.clear()
