"""The running requests and the steps they take together.

``enter`` encodes what new requests need and gives them rows of the decoder's cache; ``step`` feeds every row its next token, lets each
search advance, and answers the requests that are complete. Where memory runs out, fewer go on. Knows nothing of threads or queues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from florence2.engine.meter import Entry, Meter
from florence2.engine.next_tokens import Candidates, RankedLogits, best_tokens
from florence2.engine.request import Request, SharedImage, step_failure
from florence2.engine.shortage import is_shortage, survive
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

    def decode_step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor | RankedLogits:
        """Logits for the token after ``token_ids``, which may be on any device; ``[rows, vocabulary]``."""
        ...


Normalise = Callable[[Sequence[Any]], Tensor]
"""Makes the model's input, on its device, of the pixels of several images."""


def stacked(pixels: Sequence[Any]) -> Tensor:
    """The input of images that are tensors of the model's input already."""
    return torch.stack(list(pixels))


class Batch:
    """Requests that share decoder steps. Their order is that of the cache, which takes all its memory here, once.

    Args:
        model: what encodes and decodes.
        max_rows: the most rows of a step.
        normalise: as ``Normalise`` says.
        give_back: called when memory has run out, to free what can be spared.

    Attributes:
        requests: those that take part.
        returned: those that had to leave before their first step, for lack of memory; they are to be queued again.
        meter: what the passes cost.
    """

    def __init__(self, model: Model, max_rows: int, normalise: Normalise = stacked, give_back: Callable[[], None] = lambda: None) -> None:
        self.requests: list[Request[Any]] = []
        self.returned: list[Request[Any]] = []
        self.meter = Meter(model.device)
        self._model = model
        self._normalise = normalise
        self._give_back = give_back
        self._cache = model.new_cache(max_rows)
        self._routes: Routes = ()
        self._entry: Entry | None = None

    @property
    def num_rows(self) -> int:
        """Rows that a step computes."""
        return sum(request.search.num_rows for request in self.requests)

    @property
    def cache_bytes(self) -> int:
        """The memory that the decoder's cache takes."""
        return self._cache.resident_bytes

    def enter(self, requests: Sequence[Request[Any]]) -> None:
        """Encode ``requests`` and let them take part from the next step on.

        What fails before they are part of the cache leaves the running ones alone, and so does a lack of memory.
        """
        new = [(request.stopwatch, id(request.image) if request.image.features is None else None) for request in requests]
        entry = Entry(new, self.meter)
        self._encode_new_images(requests)
        entry.mark()
        num_before = len(self.requests)
        # A CPU is busy with one prompt. Alone it needs no padding, and inputs of 8-bit layers have the range that they have in any company.
        passes = [[request] for request in requests] if self._model.device.type == "cpu" else [requests]
        encoded = [self._encode(part) for part in passes]
        try:
            for part, prompts in zip(passes, encoded, strict=True):
                with self._routed(part):
                    self._model.admit(self._cache, prompts, [request.search.num_rows for request in part])
        except BaseException as error:
            if is_shortage(error):
                self._cache.keep(range(num_before))
            else:
                self.fail(error)
            raise
        entry.mark()
        self._entry = entry
        self.requests += requests
        self._note_routes()

    def _encode_new_images(self, requests: Sequence[Request[Any]]) -> None:
        """Encode the images of ``requests`` that are not encoded yet."""
        images = {id(request.image): request.image for request in requests if request.image.features is None}
        for adapter in {image.adapter: None for image in images.values()}:
            self._encode_images([image for image in images.values() if image.adapter is adapter], adapter)

    def _encode(self, requests: Sequence[Request[Any]]) -> EncodedPrompts:
        """Encode the prompts of ``requests``, whose images are encoded."""
        lengths = [len(request.prompt_ids) for request in requests]
        padded = [request.prompt_ids + [0] * (max(lengths) - len(request.prompt_ids)) for request in requests]
        features = torch.stack([request.image.features for request in requests if request.image.features is not None])
        with self._routed(requests):
            return self._model.encode_prompt(features, torch.tensor(padded, device=self._model.device), lengths)

    def _routed(self, requests: Sequence[Request[Any]]) -> AbstractContextManager[None]:
        """A pass in which each of ``requests`` goes through its adapter."""
        return self._model.routing.over(routes_of([request.adapter for request in requests], self._model.device))

    def _encode_images(self, images: Sequence[SharedImage], adapter: ModelAdapter | None) -> None:
        """Encode images in one pass; all of them go through the adapter, if there is one."""
        pixels = self._normalise([image.pixels for image in images if image.pixels is not None])
        with self._model.routing.over(() if adapter is None else (Route(adapter, ALL),)):
            encoded = self._model.encode_image(pixels)
        for image, features in zip(images, encoded, strict=True):
            # A copy of its own: a view would keep the whole pass in memory for as long as one of its images is kept.
            image.features, image.pixels = features.clone() if len(images) > 1 else features, None

    def _note_routes(self) -> None:
        """Work out the routes of the steps to come; they change only when requests enter or leave."""
        rows = [request.adapter for request in self.requests for _ in range(request.search.num_rows)]
        self._routes = routes_of(rows, self._model.device)

    def step(self) -> None:
        """One token for every row. Requests that are complete are answered and leave; so does one whose search fails."""
        if not self.requests:
            return
        lengths, first_row = self._cache.row_lengths, 0

        def make_room(error: BaseException) -> None:
            self._cache.rewind(lengths)
            self._halve(error)

        candidates = survive(self._candidates, make_room)
        for request in self.requests:
            search = request.search
            try:
                search.advance(candidates.rows(first_row, search.num_rows))
            except EngineFailed as error:  # one request's numbers; the others' are valid
                request.fail(error)
            else:
                request.note_step()
                request.report_step(len(self.requests))
            first_row += search.num_rows
        survive(self._reorder, self._halve)
        self._divide()
        for request in self.requests:
            if request.search.answer is not None:
                request.answer(request.search.answer, self.meter)
        self._leave_settled()

    def _candidates(self) -> Candidates:
        """The best next tokens of every row."""
        searches = [request.search for request in self.requests]
        tokens = torch.tensor([token for search in searches for token in search.tokens])
        with self._model.routing.over(self._routes):
            logits = self._model.decode_step(tokens, self._cache)
        forced = sorted({token for search in searches for token in search.forced})
        banned = [tokens for search in searches for tokens in search.banned()]
        locations = next((search.locations for search in searches if search.locations), ())
        return best_tokens(logits, max(search.num_candidates for search in searches), banned, forced, locations)

    def _reorder(self) -> None:
        """Give every row the history that its search goes on with."""
        parents: list[int] = []
        for request in self.requests:
            search, first_row = request.search, len(parents)
            is_over = search.answer is not None or request.is_settled
            parents += range(first_row, first_row + search.num_rows) if is_over else [first_row + parent for parent in search.parents]
        self._cache.reorder(parents)

    def _divide(self) -> None:
        """Divide the time of the step among the requests."""
        entry, self._entry = self._entry, None
        stepped_at = self.meter.divide_step(self.num_rows, 0.0 if entry is None else entry.divide())
        for request in self.requests:
            if request.search.answer is not None:
                request.stopwatch.stepped_at = stepped_at

    def _halve(self, error: BaseException) -> None:
        """Have the later half leave after a lack of memory; those that have not begun are to be queued again."""
        num_staying = len(self.requests) - len(self.requests) // 2
        leaving, self.requests = self.requests[num_staying:], self.requests[:num_staying]
        for request in leaving:
            if request.has_begun:
                request.fail(step_failure(error))
            else:
                self.returned.append(request)
        self._cache.keep(range(num_staying))
        self._note_routes()
        self._give_back()

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
        self.requests, self._routes, self._entry = [], (), None
        self.meter.forget_rest()
        self._cache.clear()
