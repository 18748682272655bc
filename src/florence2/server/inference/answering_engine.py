"""What the server needs of an engine: that it prepares prompts, and answers them about pictures or about image files.

``florence2.engine.engine.Engine`` and ``florence2.engine_process.remote_engine.RemoteEngine`` take pictures; an engine of a cluster takes
files, and decodes them where its model is. Knows nothing of models' names and of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from florence2.engine_stats import EngineStats
from florence2.image_files import Structure
from florence2.results import Result
from florence2.tasks.prompt import Prompt

if TYPE_CHECKING:
    from florence2.answer_events import OnEvent
    from florence2.server.inference.events import Report
    from florence2.server.inference.request import InferenceRequest


class ServedEngine(Protocol):
    """What APIs see of an engine.

    A prompt is parsed by the API, prepared once the model is there, and submitted with each image as it was prepared: nothing is parsed or
    tokenized twice, and what is wrong with it is known before an image is fetched.
    """

    @property
    def num_beams(self) -> int:
        """How many beams a request searches with that does not say so itself."""
        ...

    @property
    def max_answer_tokens(self) -> int:
        """The most tokens that an answer can have."""
        ...

    def prepare(self, prompt: Prompt) -> Any:
        """The prompt as it is submitted; refused if it is too long for the model."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of text that a token stands for."""
        ...

    def stats(self) -> EngineStats:
        """What it is doing at this moment; from any thread, and without waiting."""
        ...

    def close(self, *, cancel: bool = False) -> None:
        """Take no more requests and end."""
        ...


class AnsweringEngine(ServedEngine, Protocol):
    """An engine that takes pictures."""

    def submit_many(self, image: Any, prompts: Sequence[Any], *, on_event: OnEvent | None = None, **options: Any) -> list[Future[Result]]:
        """One future for each of several prepared prompts about one image; ``on_event`` is called in the engine's thread."""
        ...

    def add_adapter(self, name: str, source: str) -> None:
        """Add a LoRA adapter beside the weights, for requests with ``adapter=name``; refused if it can't share them."""
        ...

    def remove_adapter(self, name: str) -> None:
        """Take no more requests for an adapter."""
        ...


@runtime_checkable
class FileEngine(ServedEngine, Protocol):
    """An engine elsewhere, that takes image files and decodes them itself."""

    async def answer_file(
        self, request: InferenceRequest, file: Structure, report: Report | None, note_queued: Callable[[], None]
    ) -> list[Result]:
        """The results of a request's prompts about one of its images; a caller that stops waiting ends all of them.

        Args:
            request: what is asked; its prompts were prepared before.
            file: the image file.
            report: called in the event loop for each event, with the picture's size. None: nobody asks.
            note_queued: with ``report``: called before the first event, once the prompts are in the engine's queue.

        Raises:
            Florence2Error: they are refused, or one of them fails.
        """
        ...


AnyEngine = AnsweringEngine | FileEngine


def as_file_engine(engine: AnyEngine) -> FileEngine | None:
    """The engine, if it takes files; asked for each image, for which ``isinstance`` of a protocol is too slow."""
    return cast(FileEngine, engine) if hasattr(engine, "answer_file") else None
