"""The public face of the engine: load a checkpoint, ask it about images, close it.

Everything a caller can get wrong is checked here, in the caller's thread, and the image is decoded there as well; what
reaches the scheduler is valid. Answers come back by futures. Knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

import torch

from florence2.answer_events import OnEvent
from florence2.engine.adapters import Adapters, add_adapter, list_adapters, remove_adapter
from florence2.engine.batch import Model
from florence2.engine.image_cache import ImageCache
from florence2.engine.image_runs import run_images
from florence2.engine.loading import Loading
from florence2.engine.prepared import prepare
from florence2.engine.preprocess import Normaliser
from florence2.engine.request_maker import RequestMaker, read_picture
from florence2.engine.scheduler import Scheduler
from florence2.engine.stream import AnswerStream, EventQueue
from florence2.engine.threads import FreeCores
from florence2.engine.tiled import TiledAnswer, tiles_of
from florence2.engine_stats import EngineStats
from florence2.errors import InvalidOption, InvalidPrompt
from florence2.images import ImageInput
from florence2.images.resized import ResizedPicture
from florence2.model.cache import usable_positions
from florence2.request_options import MAX_BEAMS, RequestOptions, integer, resolve_options
from florence2.results import Result
from florence2.tasks.prompt import Prompt, Region, shortened
from florence2.tasks.tokenized_prompt import AnyPrompt, TokenizedPrompt, parsed, tokenized
from florence2.tasks.tokenizer import Tokenizer
from florence2.tiling.merging import merge
from florence2.tiling.tasks import asked_of_tiles, check_tiled
from florence2.weights.aliases import DEMO, DEMO_IS, REAL

if TYPE_CHECKING:
    from typing import Unpack

    from florence2.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

DEFAULT_MAX_ROWS = 48
DEFAULT_IMAGE_CACHE_BYTES = 134217728
# A CPU is busy with one image; a GPU takes several in little more than the time of one.
IMAGES_PER_PASS = {"cpu": 1}
DEFAULT_IMAGES_PER_PASS = 8


def load(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    adapters: Sequence[str | os.PathLike[str]] = (),
    max_rows: int = DEFAULT_MAX_ROWS,
    image_cache_bytes: int = DEFAULT_IMAGE_CACHE_BYTES,
) -> Engine:
    """An engine with a checkpoint, ready to answer.

    Args:
        name: an alias such as "florence-2-base", "alias@revision", a hub id, or a folder. None is "florence-2-demo", which knows drawn
            shapes and no photographs; a warning in the log says so, once a process.
        device: "auto" (cuda, else mps, else cpu) or a device's name.
        precision: "auto", "fp32", "bf16", "fp16", or "int8" on a CPU. "auto" is bf16 where the processor or GPU has instructions for
            it, fp16 on other GPUs, and fp32 elsewhere.
        adapters: LoRA adapters to merge, in this order; each a folder or a hub id.
        max_rows: the most beams, over all requests, that take a step together; more wait their turn.
        image_cache_bytes: how much memory keeps encoded images of recent requests, so that the next prompt on one of them
            starts at once; 0 keeps none. An image of base in float32 takes 1.8 MB, of large 2.4.

    Raises:
        ModelNotFound: no such alias, hub repository or folder.
        DownloadError: the hub could not be reached or broke off.
        CheckpointError: the folder's files are damaged, incomplete or foreign.
        InvalidOption: no such device or precision, or a number out of range.
    """
    if name is None:
        _warn_of_demo()
        name = DEMO
    options = {"device": device, "precision": precision, "adapters": adapters, "max_rows": max_rows, "image_cache_bytes": image_cache_bytes}
    return Loading(partial(load_here, name, **options)).result()


@cache
def _warn_of_demo() -> None:
    """Log once which model answers where none is named."""
    logger.warning('load() without a name is %s, %s; load("%s") is for those', DEMO, DEMO_IS, REAL)


def load_here(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    adapters: Sequence[str | os.PathLike[str]] = (),
    max_rows: int = DEFAULT_MAX_ROWS,
    image_cache_bytes: int = DEFAULT_IMAGE_CACHE_BYTES,
) -> Engine:
    """As ``load``, in the caller's thread, which should end afterwards (see ``Loading``)."""
    max_rows = integer("max_rows", max_rows, MAX_BEAMS, None)
    image_cache_bytes = integer("image_cache_bytes", image_cache_bytes, 0, None)
    ready = prepare(name, device, precision, adapters)
    sizes = {"max_rows": max_rows, "image_cache_bytes": image_cache_bytes, "weight_bytes": ready.weight_bytes}
    return Engine(ready.checkpoint, ready.model, ready.tokenizer, precision=ready.precision, **sizes)


class Engine:
    """Answers requests about images, many at a time; safe to use from many threads.

    Made by ``florence2.load``. A context manager: leaving it closes the engine, after the answers that are due, or at once
    when an exception leaves it.

    Attributes:
        device: the device of its model.
        precision: "fp32", "bf16", "fp16" or "int8"; what "auto" has chosen.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: Model,
        tokenizer: Tokenizer,
        *,
        precision: str = "fp32",
        max_rows: int = DEFAULT_MAX_ROWS,
        image_cache_bytes: int = DEFAULT_IMAGE_CACHE_BYTES,
        weight_bytes: int = 0,
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.device = model.device
        self.precision = precision
        images_per_pass = IMAGES_PER_PASS.get(model.device.type, DEFAULT_IMAGES_PER_PASS)
        # Not in bf16: its products are split by the number of threads, so that answers would depend on what else the machine does.
        before_pass = FreeCores().fit if model.device.type == "cpu" and precision != "bf16" else lambda: None
        self._weight_bytes = weight_bytes
        images = ImageCache(image_cache_bytes)
        self._scheduler = Scheduler(
            model,
            max_rows=max_rows,
            images_per_pass=images_per_pass,
            normalise=Normaliser(checkpoint.image, model.device),
            before_pass=before_pass,
            give_back=images.give_back,
        )
        # An engine without references still answers the futures that it has given out.
        self._finalizer = weakref.finalize(self, self._scheduler.close, wait=False)
        self._finalizer.atexit = False
        vision = checkpoint.config.vision
        self._num_image_tokens = vision.num_image_tokens(checkpoint.image.height, checkpoint.image.width)
        self._maker = RequestMaker(checkpoint, tokenizer, images, self._num_image_tokens)
        self._adapters = Adapters(checkpoint, model)

    @property
    def num_beams(self) -> int:
        """How many beams a request searches with that does not say so itself."""
        return self.checkpoint.generation.num_beams

    @property
    def max_answer_tokens(self) -> int:
        """The most tokens an answer can have: one for each position of the decoder that there is memory for."""
        return usable_positions(self.checkpoint.config.text, self.device)

    @property
    def max_prompt_tokens(self) -> int:
        """The most tokens a prompt can have, ``<s>`` and ``</s>`` included: the encoder's positions that the image leaves free."""
        return usable_positions(self.checkpoint.config.text, self.device) - self._num_image_tokens

    def run(
        self,
        image: ImageInput,
        prompt: AnyPrompt,
        *,
        text: str | None = None,
        region: Region | None = None,
        **options: Unpack[RequestOptions],
    ) -> Result:
        """The answer to one prompt about one image; waits for it.

        Arguments and errors are those of ``submit``; errors of the engine itself (``EngineFailed``) are raised too.
        """
        return self._wait([self.submit(image, prompt, text=text, region=region, **options)])[0]

    def run_many(self, image: ImageInput | ResizedPicture, prompts: Sequence[AnyPrompt], **options: Unpack[RequestOptions]) -> list[Result]:
        """The answers to several prompts about one image, in their order; the image is encoded once.

        Args:
            image: as in ``submit_many``.
            prompts: tags (with their text or region behind them, where they need one), free texts, or parsed or prepared prompts.
            options: those of ``RequestOptions``, for all prompts.
        """
        return self._wait(self.submit_many(image, prompts, **options))

    run_images = run_images
    add_adapter, remove_adapter = add_adapter, remove_adapter
    adapters = property(list_adapters)

    def stream(
        self,
        image: ImageInput,
        prompt: AnyPrompt,
        *,
        text: str | None = None,
        region: Region | None = None,
        **options: Unpack[RequestOptions],
    ) -> AnswerStream:
        """The answer to one prompt about one image as it is generated: an iterator of events, and at last the ``Result``.

        Events are ``TokensDecided``, and ``ObjectFound`` for each object that they complete. The result equals that of ``run``, and nothing
        that an event says is taken back. With beams, tokens are decided once all beams agree on them. Closing the iterator, or dropping it,
        cancels the request. Arguments and errors are those of ``submit``; errors of the engine itself are raised by the iterator.
        """
        events: EventQueue = EventQueue()
        (future,) = self._submit(image, [(prompt, text, region)], options, events.put)
        return AnswerStream(future, events, self._scheduler.check_may_wait)

    def submit(
        self,
        image: ImageInput,
        prompt: AnyPrompt,
        *,
        text: str | None = None,
        region: Region | None = None,
        on_event: OnEvent | None = None,
        **options: Unpack[RequestOptions],
    ) -> Future[Result]:
        """The answer to one prompt about one image, as a future.

        Cancelling the future takes the request out of the queue, or frees its rows before the engine's next step.
        Callbacks of the future run in the engine's thread: keep them short, and call nothing there that waits for an answer.

        Args:
            image: a path, the bytes of an image file, a Pillow image, or an RGB array (uint8, ``[height, width, 3]``).
            prompt: a task's tag such as "<OD>", or a free text; or one that is parsed (``tasks.parse_prompt``) or prepared
                (``prepare``) already, which then holds its text or region.
            text: what a task with a text is about.
            region: what a task with a region is about: x1, y1, x2, y2 in pixels of the image, or four ``<loc_…>`` tokens.
            on_event: called with a ``TokensDecided`` when steps have decided tokens, with text at most every 20 ms, and an ``ObjectFound``
                for each object that these complete, before the future is done. It runs in the engine's thread, as callbacks of the future
                do; from asyncio, give one that calls ``loop.call_soon_threadsafe``. What it raises fails its own request.
            options: those of ``RequestOptions``.

        Raises:
            InvalidRequest: the image, prompt, text, region or an option is wrong (its subclasses say which).
            EngineClosed: the engine is closed, or was loaded in another process.
        """
        return self._submit(image, [(prompt, text, region)], options, on_event)[0]

    def submit_many(
        self,
        image: ImageInput | ResizedPicture,
        prompts: Sequence[AnyPrompt],
        *,
        on_event: OnEvent | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Future[Result]]:
        """One future for each of several prompts about one image, which is encoded once.

        Args:
            image: as in ``submit``; or a picture at the model's size already, with its tiles, to which results then don't refer.
            prompts: tags (with their text or region behind them, where they need one), free texts, or parsed or prepared prompts.
            on_event: as in ``submit``; the ``index`` of an event says which of the prompts it belongs to.
            options: those of ``RequestOptions``, for all prompts.

        Raises:
            InvalidRequest: as in ``submit``; then none of the prompts is queued.
            EngineClosed: the engine is closed, or was loaded in another process.
        """
        if isinstance(prompts, str):
            raise InvalidPrompt("prompts must be a list of strings, got one string; use run or submit for one prompt", field="prompts")
        return self._submit(image, [(prompt, None, None) for prompt in prompts], options, on_event)

    def prepare(
        self, prompt: str | Prompt, *, text: str | None = None, region: Region | None = None, allow_unknown_tag: bool = False
    ) -> TokenizedPrompt:
        """The prompt parsed and tokenized, before there is an image; ``run`` and ``submit`` take it instead of the prompt.

        Args:
            prompt: a task's tag, a free text, or a parsed prompt.
            text: as in ``submit``.
            region: as in ``submit``; whether it lies inside the image is seen with the image.
            allow_unknown_tag: as in ``RequestOptions``.

        Raises:
            PromptTooLong: more tokens than the encoder has room for.
            InvalidRequest: the prompt, text or region is wrong.
            EngineClosed: the engine was loaded in another process.
        """
        self._scheduler.check_process()
        return self._tokenized(prompt, text, region, allow_unknown_tag)

    def check_length(self, prompt: str, *, text: str | None = None, region: Region | None = None, allow_unknown_tag: bool = False) -> None:
        """Refuse a prompt that is wrong or too long for this model, before any image is read; arguments and errors as in ``prepare``."""
        self.prepare(prompt, text=text, region=region, allow_unknown_tag=allow_unknown_tag)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for, which need not be whole characters; none for an id outside the vocabulary."""
        return self.tokenizer.token_bytes(token_id)

    def stats(self) -> EngineStats:
        """What the engine is doing and holds, at this moment; cheap, and allowed in any thread.

        Raises:
            EngineClosed: the engine was loaded in another process.
        """
        self._scheduler.check_process()
        stats, images = self._scheduler.stats(), self._maker.images
        image_bytes = images.num_bytes
        return replace(
            stats,
            image_cache_bytes=image_bytes,
            image_cache_hits=images.num_hits,
            image_cache_misses=images.num_misses,
            memory_bytes=self._weight_bytes + self._adapters.num_bytes + stats.memory_bytes + image_bytes,
        )

    def close(self, *, cancel: bool = False) -> None:
        """Take no more requests and end. Closing again does nothing.

        Args:
            cancel: cancel what is waiting or running; otherwise it is answered first.
        """
        self._scheduler.close(cancel=cancel)

    def __enter__(self) -> Engine:
        """The engine itself."""
        self._scheduler.check_process()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close(cancel=error is not None)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or sent to another process."""
        raise TypeError("an engine can't be copied or sent to another process (its model lives in this one): load one there")

    def _submit(
        self,
        image: ImageInput | ResizedPicture,
        asked: Sequence[tuple[AnyPrompt, str | None, Region | None]],
        options: RequestOptions,
        on_event: OnEvent | None = None,
    ) -> list[Future[Result]]:
        """Check everything, then queue the prompts next to each other."""
        self._scheduler.check_process()  # first: locks and PyTorch's threads are of no use in a fork
        if on_event is not None and not callable(on_event):
            raise InvalidOption(f"events are reported to a function of one event, got {shortened(on_event)}")
        options = options.copy()
        fair_key = options.pop("fair_key", None) or ""
        adapter = self._adapters.find(options.pop("adapter", None))
        tiles = tiles_of(options.pop("tiles", None), on_event)
        generation, flags = resolve_options(options, self.checkpoint.generation, self.max_answer_tokens)
        picture, source = read_picture(image, flags["auto_orient"], flags["keep_image"])
        prompts = [self._tokenized(prompt, text, region, flags["allow_unknown_tag"]) for prompt, text, region in asked]
        for given in prompts if tiles is not None else ():
            check_tiled(given.prompt)
        ask = partial(self._maker.make, generation=generation, scores=flags["scores"], fair_key=fair_key, adapter=adapter)
        boxes = [] if tiles is None else tiles.boxes(picture.size)
        if len(boxes) < 2:
            requests = ask(picture, prompts, source=source, on_event=on_event)
            futures: list[Future[Result]] = [request.future for request in requests]
        else:
            of_tiles = [self._tokenized(asked_of_tiles(given.prompt), None, None, False) for given in prompts]
            parts = [ask(picture if box == (0, 0, *picture.size) else picture.crop(box), of_tiles) for box in boxes]
            requests = [request for part in parts for request in part]
            merges = [partial(merge, boxes=boxes, size=picture.size, task=given.prompt.task_key, source=source) for given in prompts]
            futures = [TiledAnswer(requests[index :: len(prompts)], merge) for index, merge in enumerate(merges)]
        self._scheduler.submit(requests)
        return futures

    def _tokenized(self, prompt: AnyPrompt, text: str | None, region: Region | None, allow_unknown_tag: bool) -> TokenizedPrompt:
        prompt = parsed(prompt, text, region, allow_unknown_tag)
        return tokenized(prompt, self.tokenizer, max_tokens=self.max_prompt_tokens, num_image_tokens=self._num_image_tokens)

    def _wait(self, futures: list[Future[Result]]) -> list[Result]:
        """The results of ``futures``. An error, or an interrupted wait, cancels those that are not there yet."""
        self._scheduler.check_may_wait()
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
