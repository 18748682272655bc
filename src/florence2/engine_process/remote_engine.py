"""One model in the engine's process, with the methods of ``Engine`` that a server needs.

Prompts are tokenized and pictures resized here; there they only have to be queued. Results, events and errors are those of ``Engine``.
Knows nothing of the process itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from florence2.answer_events import OnEvent
from florence2.engine_process.lanes import Lanes
from florence2.engine_process.link import Link
from florence2.engine_process.messages import Invoke, ModelFacts, Submit
from florence2.engine_stats import EngineStats
from florence2.errors import InvalidOption, InvalidPrompt
from florence2.images import ImageInput, read_image
from florence2.images.resized import ResizedPicture, resized
from florence2.request_options import resolve_options
from florence2.results import Result
from florence2.tasks.prompt import Prompt, Region
from florence2.tasks.tokenized_prompt import AnyPrompt, TokenizedPrompt, parsed, tokenized
from florence2.tasks.tokenizer import Tokenizer
from florence2.tiling.tiles import as_tiles

if TYPE_CHECKING:
    from florence2.request_options import RequestOptions

CANCELLED_S = 2.0  # longest wait for an engine that is to cancel what it has; its process may hang
NOT_SEARCHED = ("fair_key", "tiles", "adapter")  # options that are none of the search


class RemoteEngine:
    """A model that was loaded by ``EngineProcess.load``. Results keep no picture.

    Args:
        link: the connection with its process.
        lanes: the way of its pictures.
        number: its number there.
        facts: what is known of it.

    Attributes:
        device: the name of the model's device.
        precision: "fp32", "bf16", "fp16" or "int8".
        num_beams: how many beams a request searches with that does not say so itself.
        max_answer_tokens: the most tokens that an answer can have.
        max_prompt_tokens: the most tokens that a prompt can have.
    """

    def __init__(self, link: Link, lanes: Lanes, number: int, facts: ModelFacts) -> None:
        self.device, self.precision = facts.device, facts.precision
        self.num_beams = facts.generation.num_beams
        self.max_answer_tokens, self.max_prompt_tokens = facts.max_answer_tokens, facts.max_prompt_tokens
        self._link, self._lanes, self._number, self._facts = link, lanes, number, replace(facts, tokenizer="")  # it is long
        self._tokenizer = Tokenizer.from_json(facts.tokenizer, facts.folder)

    @property
    def is_lost(self) -> bool:
        """Whether its process has ended."""
        return self._link.has_ended.is_set()

    @property
    def memory_bytes(self) -> int:
        """The memory that the model takes there, as it last said."""
        return self.stats().memory_bytes

    @property
    def facts(self) -> ModelFacts:
        """What is known of it, for who prepares its requests elsewhere."""
        return replace(self._facts, tokenizer=self._tokenizer.to_json())

    def stats(self) -> EngineStats:
        """What the engine was doing when its process last said so."""
        return self._link.stats.get(self._number, EngineStats())

    def prepare(
        self, prompt: str | Prompt, *, text: str | None = None, region: Region | None = None, allow_unknown_tag: bool = False
    ) -> TokenizedPrompt:
        """The prompt as ``submit_many`` takes it; arguments and errors as those of ``Engine.prepare``."""
        return self._tokenized(parsed(prompt, text, region, allow_unknown_tag))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of text that a token stands for."""
        return self._tokenizer.token_bytes(token_id)

    def submit_many(
        self, image: ImageInput | ResizedPicture, prompts: Sequence[AnyPrompt], *, on_event: OnEvent | None = None, **options: Any
    ) -> list[Future[Result]]:
        """One future for each of several prompts about one image, once they are in the engine's queue.

        Arguments are those of ``Engine.submit_many``. ``on_event`` is called in a thread that all answers of the process come through.

        Raises:
            InvalidRequest: the image, a prompt or an option is wrong; then none of the prompts is queued.
            EngineClosed: the model was closed.
            EngineDied: the process has ended.
        """
        if isinstance(prompts, str):
            raise InvalidPrompt("prompts must be a list of strings, got one string", field="prompts")
        if on_event is not None and not callable(on_event):
            raise InvalidOption(f"events are reported to a function of one event, got {on_event!r}")
        searched: RequestOptions = {name: value for name, value in options.items() if name not in NOT_SEARCHED}  # type: ignore[assignment]
        _, flags = resolve_options(searched, self._facts.generation, self.max_answer_tokens)
        given = [self._tokenized(parsed(prompt, None, None, flags["allow_unknown_tag"])) for prompt in prompts]
        if not given:
            return []
        picture = image if isinstance(image, ResizedPicture) else self._resized(image, flags["auto_orient"], options.get("tiles"))
        travelling = tuple((prompt.prompt, prompt.token_ids) for prompt in given)
        options = {**options, "keep_image": False}
        with self._lanes.taken() as lane:
            layout = lane.write(picture)
            return self._link.submit(
                lambda number: Submit(number, self._number, lane.index, layout, travelling, options, on_event is not None),
                len(travelling),
                on_event,
            )

    def add_adapter(self, name: str, source: str | os.PathLike[str]) -> None:
        """As ``Engine.add_adapter``."""
        self._invoke("add_adapter", name=name, source=source).result()

    def remove_adapter(self, name: str) -> None:
        """As ``Engine.remove_adapter``."""
        self._invoke("remove_adapter", name=name).result()

    def close(self, *, cancel: bool = False) -> None:
        """Take no more requests and end, once those that are there are answered.

        Args:
            cancel: cancel them instead; a process that hangs is not waited for.
        """
        if not self.is_lost:
            self._invoke("close", cancel=cancel).exception(CANCELLED_S if cancel else None)

    def _invoke(self, method: str, **arguments: Any) -> Future[Any]:
        return self._link.call(lambda number: Invoke(number, self._number, method, arguments))

    def _tokenized(self, prompt: Prompt | TokenizedPrompt) -> TokenizedPrompt:
        facts = self._facts
        return tokenized(prompt, self._tokenizer, max_tokens=facts.max_prompt_tokens, num_image_tokens=facts.num_image_tokens)

    def _resized(self, image: ImageInput, auto_orient: bool, tiles: Any) -> ResizedPicture:
        """The picture as it travels, with its tiles."""
        picture = read_image(image, auto_orient=auto_orient)
        boxes = [] if tiles is None else as_tiles(tiles).boxes(picture.size)
        parts = [box for box in boxes if box != (0, 0, *picture.size)]
        return resized(picture, self._facts.image, parts if len(boxes) > 1 else ())
