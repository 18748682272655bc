"""CUDA graphs: steps that are captured once and replayed, for devices on which launching an operation costs more than running it.

A decoder step is some hundred small operations; on a GPU the time goes into launching them one by one. ``GraphedModel`` stands in
for a model: it rounds the sizes of steps and of image passes up to a few, records each of these once, with the choice of the best next
tokens, and from then on only copies the inputs into fixed buffers and replays. So a greedy step is one copy to the device, one launch and
one copy back; those of beams also move histories that change their rows. How work is recorded is up to the backend: CUDA graphs here, and
in tests on a CPU a backend that runs the recorded work again. What fails is dropped with a line in the log: fused steps first, then
recordings.

Knows what a model is and what a step is; nothing of requests or search.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from florence2.engine.next_tokens import RankedLogits, rank
from florence2.model import DecoderCache, EncodedPrompts, Florence2
from florence2.model.attention import KeyLengths
from florence2.model.cache import QueryPermutation, Step, StepNumbers, StepSize, StepTensors
from florence2.model.gpu.decoder_step import FusedStep

REQUESTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
LENGTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
SOURCE_STEP = 64
IMAGES = (1, 2, 4, 8)
SPARE = 16  # tokens that are ranked beyond twice as many as a request has beams: as many may be banned before rows are ranked again
MAX_RECORDINGS = 128  # of steps; they share their memory, but each takes some of the driver's

_log = logging.getLogger("florence2")
_recording = threading.Lock()


Work = Callable[[], tuple[Tensor, ...]]


class Recorder(Protocol):
    """A backend: makes of work on tensors in fixed addresses something that can be played."""

    def record(self, work: Work) -> Work:
        """Do ``work`` at least once; gives what does it again and returns the same tensors, filled anew."""
        ...


class CudaGraphs:
    """Recording by CUDA graphs that share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def record(self, work: Work) -> Work:
        """As ``Recorder.record``."""
        # One recording at a time in a process; other threads may go on computing, so only this one's calls are watched. The outer stream
        # context brings the thread back to its own stream if recording breaks.
        with _recording, torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):  # libraries set themselves up in the first runs, which can't be recorded
                for _ in range(2):
                    work()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                output = work()
        return lambda: (graph.replay(), output)[1]


class GraphedModel:
    """A model whose decoder steps and image passes are played from recordings.

    Args:
        model: on the recorder's device.
        recorder: the backend.
        image_size: height and width of the images to come; the pass of one and a request's first steps are then recorded with the cache.
            Everything else is recorded when it first comes.
        num_beams: rows of the requests to come.
        forced: the tokens that may be forced, whose log-probabilities are to be found with each step.

    Attributes:
        plain: the model, which computes without recordings what goes through adapters.
    """

    def __init__(
        self,
        model: Florence2,
        recorder: Recorder,
        *,
        image_size: tuple[int, int] | None = None,
        num_beams: Sequence[int] = (1,),
        forced: Sequence[int] = (),
    ) -> None:
        self._model = self.plain = model
        self._image_size = image_size
        self._num_beams = num_beams
        self._forced = tuple(forced)
        self._recorder: Recorder | None = recorder
        self._cache: DecoderCache | None = None
        self._steps: dict[_StepKind, _RecordedStep] = {}
        self._images: dict[torch.Size, _RecordedImages] = {}
        self.device, self.dtype, self.routing = model.device, model.dtype, model.routing

    def new_cache(self, max_rows: int) -> DecoderCache:
        """A cache; steps of the latest one are recorded, for recordings hold on to its memory."""
        cache = self._cache = self._model.new_cache(max_rows)
        self._steps = {}
        if self._image_size is not None:
            self._warm_up(cache, *self._image_size)
        return cache

    @torch.inference_mode()
    def _warm_up(self, cache: DecoderCache, height: int, width: int) -> None:
        features = self.encode_image(torch.zeros(1, 3, height, width, device=self.device))
        encoded = self.encode_prompt(features, torch.zeros(1, 2, dtype=torch.long, device=self.device), [2])
        for num_beams in dict.fromkeys(min(count, cache.max_rows) for count in self._num_beams):
            self.admit(cache, encoded, [num_beams])
            self.decode_step(torch.zeros(num_beams, dtype=torch.long), cache)
            cache.keep([])

    def encode_prompt(self, image_features: Tensor, prompt_ids: Tensor, prompt_lengths: Sequence[int]) -> EncodedPrompts:
        """As the model does: prompts are too different from each other to be recorded."""
        return self._model.encode_prompt(image_features, prompt_ids, prompt_lengths)

    def admit(self, cache: DecoderCache, encoded: EncodedPrompts, num_beams: Sequence[int]) -> None:
        """As the model does."""
        self._model.admit(cache, encoded, num_beams)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """As the model does, in as many images as were recorded."""
        count = len(pixel_values)
        if self._recorder is None or count > IMAGES[-1] or self.routing.routes:
            return self._model.encode_image(pixel_values)
        shape = torch.Size((IMAGES[bisect_left(IMAGES, count)], *pixel_values.shape[1:]))
        recorded = self._images.get(shape)
        if recorded is None:
            try:
                recorded = self._images[shape] = _RecordedImages(self._model, self._recorder, pixel_values, shape)
            except RuntimeError as error:
                self._give_up(error)
                return self._model.encode_image(pixel_values)
        return recorded.play(pixel_values)

    def decode_step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor | RankedLogits:
        """As the model does, in a step of a size that was recorded, and ranked; the next step overwrites the result."""
        is_plain = self._recorder is None or cache is not self._cache or self.routing.routes
        size = None if is_plain else rounded(cache.needed_size(), cache)
        if size is None or self._recorder is None:
            return self._model.decode_step(token_ids, cache)
        numbers, tokens = cache.numbers(size), token_ids.tolist()
        kind = _StepKind(size, numbers.order is None)
        recorded = self._steps.pop(kind, None)
        if recorded is None:
            try:
                recorded = _RecordedStep(self._model, self._recorder, cache, kind, self._forced, tokens, numbers)
            except Exception as error:  # CUDA's and Triton's have no type in common
                self._give_up_step(error)
                return self.decode_step(token_ids, cache)
            if len(self._steps) >= MAX_RECORDINGS:  # the one that was played longest ago
                del self._steps[next(iter(self._steps))]
        self._steps[kind] = recorded
        logits = recorded.play(tokens, numbers)
        cache.end_step()
        return logits

    def _give_up_step(self, error: Exception) -> None:
        """Do without fused steps if there are any, which may need what can't be compiled here; else without recordings."""
        text = self._model.language_model
        if not isinstance(text.compiled_step, FusedStep):
            self._give_up(error)
            return
        _log.warning("decoder steps are computed by PyTorch from here on, which is slower: fused ones failed: %s", error)
        text.compiled_step, self._steps = None, {}

    def _give_up(self, error: Exception) -> None:
        _log.warning("steps can't be recorded on %s and run as they come, which is slower: %s", self.device, error)
        self._recorder, self._steps, self._images = None, {}, {}


def rounded(size: StepSize, cache: DecoderCache) -> StepSize | None:
    """The smallest recorded size that holds ``size``, or None if none does."""
    if size.requests > REQUESTS[-1]:
        return None
    requests = min(REQUESTS[bisect_left(REQUESTS, size.requests)], cache.max_rows)
    rows = min(requests * size.beams, cache.max_rows)
    length = min(next((length for length in LENGTHS if length >= size.length), size.length), cache.max_positions)
    source = min(-(-size.source // SOURCE_STEP) * SOURCE_STEP, cache.max_positions)
    return StepSize(rows, requests, size.beams, length, source)


class _StepKind(NamedTuple):
    """What recordings of steps differ by: their size, and whether rows and queries have the same order."""

    size: StepSize
    is_in_order: bool


class _RecordedStep:
    """One kind of step: its inputs in fixed addresses, and what plays it.

    All inputs are numbers that are known before the step, so they lie behind each other and come to the device in one copy.
    """

    def __init__(
        self,
        model: Florence2,
        recorder: Recorder,
        cache: DecoderCache,
        kind: _StepKind,
        forced: tuple[int, ...],
        tokens: list[int],
        numbers: StepNumbers,
    ) -> None:
        size = kind.size
        counts = [size.rows, size.rows, size.rows, size.requests]
        counts += [] if kind.is_in_order else [size.rows, size.requests * size.beams]
        self._rows = size.rows
        self._inputs = _Inputs(sum(counts), model.device)
        token_ids, positions, lengths, sources, *order = self._inputs.tensor.split(counts)
        step = cache.step_of(size, StepTensors(positions, lengths, sources, QueryPermutation(*order) if order else None))
        self._step = step  # held: a recording reads the memory of these tensors, and does not keep it
        self._forced, self._count = forced, min(2 * size.beams + SPARE, model.config.text.vocab_size)

        compiled = model.language_model.compiled_step
        chosen_by = compiled.rank if isinstance(compiled, FusedStep) else rank

        def work() -> tuple[Tensor, ...]:
            logits = model.decode(token_ids, _afresh(step)).float()
            return logits, chosen_by(logits, self._count, forced)

        self._fill(tokens, numbers)
        self._play = recorder.record(work)

    def play(self, tokens: list[int], numbers: StepNumbers) -> RankedLogits:
        """The logits of a step with these numbers, in tensors that the next play overwrites."""
        self._fill(tokens, numbers)
        logits, ranked = self._play()
        return RankedLogits(logits[: len(tokens)], ranked[: len(tokens)], self._count, self._forced)

    def _fill(self, tokens: list[int], numbers: StepNumbers) -> None:
        positions, lengths, sources, order = numbers
        padding = [0] * (self._rows - len(tokens))
        self._inputs.fill([*tokens, *padding, *positions, *lengths, *sources, *(index for part in order or () for index in part)])


class _Inputs:
    """Numbers in a tensor of a device, to which they come in one copy that nobody waits for.

    On a GPU they are copied from pinned memory: other memory might be free again, and in use, before the copy has been made.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.tensor = torch.zeros(count, dtype=torch.long, device=device)
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._staged = torch.zeros(count, dtype=torch.long, pin_memory=self._copied is not None)

    def fill(self, numbers: list[int]) -> None:
        """Have these numbers in the tensor for all that the device does from now on."""
        if self._copied is not None:
            self._copied.synchronize()
        self._staged.copy_(torch.tensor(numbers))
        self.tensor.copy_(self._staged, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self.tensor.device))


def _afresh(step: Step) -> Step:
    """The step without masks: they are made of lengths that change between plays, so making them is part of what is recorded."""
    return replace(step, key_lengths=_unmasked(step.key_lengths), cross_key_lengths=_unmasked(step.cross_key_lengths))


def _unmasked(given: KeyLengths) -> KeyLengths:
    lengths = given.lengths.int() if given.lengths.device.type == "cpu" else given.lengths  # routines for CPUs read 32 bits
    return KeyLengths(lengths, given.num_keys, is_full=False)


class _RecordedImages:
    """One number of images: where their pixels go, and what plays the pass."""

    def __init__(self, model: Florence2, recorder: Recorder, pixel_values: Tensor, shape: torch.Size) -> None:
        self._pixels = pixel_values.new_zeros(shape)
        self._pixels[: len(pixel_values)] = pixel_values
        self._play = recorder.record(lambda: (model.encode_image(self._pixels),))

    def play(self, pixel_values: Tensor) -> Tensor:
        """The images' tokens, in memory of their own."""
        self._pixels[: len(pixel_values)] = pixel_values
        return self._play()[0][: len(pixel_values)].clone()
