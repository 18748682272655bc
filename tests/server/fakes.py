"""A scripted engine, and the application around it without any socket."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from PIL import Image

from florence2.engine.options import resolve_options
from florence2.engine.tokenized_prompt import parsed
from florence2.errors import EngineClosed, InvalidPrompt, PromptTooLong
from florence2.images import read_image
from florence2.results import Result
from florence2.server.app import create_app
from florence2.server.inference.models import Loader
from florence2.server.settings import Settings
from florence2.tasks.prompt import Prompt
from florence2.weights.defaults import GenerationDefaults

MAX_WORDS = 200
MAX_ANSWER_TOKENS = 1024


class FakeEngine:
    """Answers at once, or when it is let.

    Attributes:
        asked: prompt and options of each request so far.
        pictures: the images that came with them.
        futures: their futures.
        hold: while true, requests stay unanswered.
        failure: what the next requests fail with, after they were accepted.
        is_closed: it takes no more requests.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.pictures: list[Image.Image] = []
        self.futures: list[Future[Result]] = []
        self.hold = False
        self.failure: Exception | None = None
        self.is_closed = False
        self._lock = threading.Lock()

    def prepare(self, prompt: str | Prompt, *, text: str | None = None, region: Any = None, allow_unknown_tag: bool = False) -> Prompt:
        given = parsed(prompt, text, region, allow_unknown_tag)
        assert isinstance(given, Prompt)
        if len(given.sentence.split()) > MAX_WORDS:
            raise PromptTooLong("the prompt is too long", field="text" if given.tag else "prompt")
        return given

    def submit(self, image: Any, prompt: str | Prompt, *, text: str | None = None, region: Any = None, **options: Any) -> Future[Result]:
        return self._submit(image, [(prompt, text, region)], options)[0]

    def submit_many(self, image: Any, prompts: Sequence[str | Prompt], **options: Any) -> list[Future[Result]]:
        if isinstance(prompts, str):
            raise InvalidPrompt("prompts must be a list of strings, got one string", field="prompts")
        return self._submit(image, [(prompt, None, None) for prompt in prompts], options)

    def _submit(
        self, image: Any, requests: Sequence[tuple[str | Prompt, str | None, Any]], options: dict[str, Any]
    ) -> list[Future[Result]]:
        """Check everything, then take all requests or none, as the engine does."""
        generation: Any = {name: value for name, value in options.items() if name != "fair_key"}
        _, flags = resolve_options(generation, GenerationDefaults(), MAX_ANSWER_TOKENS)
        picture = read_image(image, auto_orient=flags["auto_orient"])
        prompts = [
            self.prepare(prompt, text=text, region=region, allow_unknown_tag=flags["allow_unknown_tag"])
            for prompt, text, region in requests
        ]
        bound = [prompt.bind(picture.size) for prompt in prompts]
        with self._lock:
            if self.is_closed:
                raise EngineClosed("the engine is closed")
            return [self._take(image, prompt, one, options) for prompt, one in zip(prompts, bound, strict=True)]

    def _take(self, image: Any, prompt: Prompt, bound: Prompt, options: dict[str, Any]) -> Future[Result]:
        future: Future[Result] = Future()
        in_pixels = None if prompt.region is None else list(prompt.region)
        self.asked.append({"prompt": bound.inline, "region": in_pixels, "sentence": bound.sentence, "bound": bound, **options})
        self.pictures.append(image)
        self.futures.append(future)
        if self.failure is not None:
            future.set_exception(self.failure)
        elif not self.hold:
            future.set_result(answer_to(bound, image.size, options.get("scores", False)))
        return future

    def close(self, *, cancel: bool = False) -> None:
        with self._lock:
            self.is_closed = True
        if cancel:
            for future in self.futures:
                future.cancel()

    def release(self) -> None:
        """Answer everything that waits."""
        self.hold = False
        for future, asked, picture in zip(self.futures, self.asked, self.pictures, strict=True):
            if not future.done():
                future.set_result(answer_to(asked["bound"], picture.size, False))


def answer_to(prompt: Prompt, size: tuple[int, int], scores: bool) -> Result:
    """What the fake says: the sentence itself, or one box over the whole image."""
    is_text = prompt.kind == "text"
    width, height = size
    return Result(
        task=prompt.task_key,
        kind=prompt.kind,
        image_size=size,
        text=prompt.sentence if is_text else "thing",
        raw=f"<s>{prompt.sentence}</s>",
        boxes=[] if is_text else [[0, 0, width - 1, height - 1]],
        labels=[] if is_text else ["thing"],
        bins=[] if is_text else [[0, 0, 999, 999]],
        scores=[0.5] if scores and not is_text else None,
        token_ids=[0, 7, 2],
        log_probability=-1.5,
    )


@asynccontextmanager
async def client_of(engine: FakeEngine | None = None, loader: Loader | None = None, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application around a fake engine, from start to end of its life."""
    app = create_app(Settings(**settings), engine=engine if engine or loader else FakeEngine(), loader=loader)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://server") as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


def image_bytes(size: tuple[int, int] = (64, 48), kind: str = "PNG", mode: str = "RGB", color: Any = "red", **options: Any) -> bytes:
    """A plain image file."""
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind, **options)
    return file.getvalue()


def rotated_jpeg(size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return image_bytes(size, "JPEG", exif=exif)


def image_field(data: bytes | None = None) -> dict[str, Any]:
    """An image as it stands in a request."""
    return {"type": "base64", "value": base64.b64encode(data or image_bytes()).decode("ascii")}


def body(**fields: Any) -> dict[str, Any]:
    """The body of a request, as the documentation shows it, with other fields."""
    return {"api_key": "KEY", "model_id": "florence-2-base", "prompt": "<CAPTION>", "image": image_field(), **fields}
