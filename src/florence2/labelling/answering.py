"""What answers the questions of a labelling run: a model in this process, or one behind a server (``served``).

In: a picture and its prompts. Out: their results; many threads ask at once. Knows nothing of journals and files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from florence2.errors import Florence2Error
from florence2.tasks.prompt import parse_prompt
from florence2.tiling.tasks import TILED_TAGS

if TYPE_CHECKING:
    from PIL import Image

    from florence2.engine.engine import Engine
    from florence2.images.resized import ResizedPicture
    from florence2.results import Result

_SPARE_PICTURES = 4
"""Pictures that are resized and queued while the engine's rows are taken."""
_MOST_ON_CPU = 16
"""Each picture under way is in memory, and a processor has less of that to spare than of time."""


class ModelGone(Florence2Error):
    """No picture can be asked about any more: the server is not to be reached, or refuses every call."""

    code = "model_gone"
    status = 503


class AnsweringModel(Protocol):
    """What pictures are shown to.

    Attributes:
        capacity: how many pictures are asked about at once.
    """

    capacity: int

    def ask(self, picture: Image.Image | ResizedPicture, prompts: Sequence[str], file: Path | None) -> list[Result]:
        """The results of prompts about one picture, in their order; waits for them. May be called by several threads.

        Args:
            picture: its pixels; those at the model's size alone where the model is one of this process.
            prompts: tags with their text behind them.
            file: where the same pixels lie, if they do.

        Raises:
            InvalidRequest: a prompt or option is wrong for this model.
            EngineFailed, InferenceError: there is no answer about this picture.
            ModelGone: there will be no answer about any picture.
        """
        ...

    def close(self, *, cancel: bool) -> None:
        """End it; what is under way is cancelled, or answered first."""
        ...


def asked_apart(
    prompts: Sequence[str], options: Mapping[str, Any], ask: Callable[[list[str], Mapping[str, Any]], list[Result]]
) -> list[Result]:
    """The results of prompts in their order, those that make no sense about tiles asked without.

    Args:
        prompts: the prompts.
        options: of the requests.
        ask: gives the results of some prompts with these options.
    """
    if "tiles" not in options:
        return ask(list(prompts), options)
    whole = {name: value for name, value in options.items() if name not in ("tiles", "tile_overlap")}
    are_tiled = [parse_prompt(prompt).tag in TILED_TAGS for prompt in prompts]
    results = {
        is_tiled: iter(ask(some, options if is_tiled else whole))
        for is_tiled in (True, False)
        if (some := [prompt for prompt, flag in zip(prompts, are_tiled, strict=True) if flag == is_tiled])
    }
    return [next(results[is_tiled]) for is_tiled in are_tiled]


class EngineModel:
    """An engine of this process.

    Args:
        engine: it.
        options: of every request.
        num_requests: how many requests each picture begins with.
        is_owned: whether the engine ends with the run.
    """

    def __init__(self, engine: Engine, options: Mapping[str, Any], num_requests: int, *, is_owned: bool = True) -> None:
        from florence2.engine.engine import DEFAULT_MAX_ROWS

        self._engine, self._options, self._is_owned = engine, {**options, "scores": True, "keep_image": False}, is_owned
        rows = num_requests * (options.get("num_beams") or engine.num_beams)
        capacity = -(-DEFAULT_MAX_ROWS // rows) + _SPARE_PICTURES
        self.capacity = min(capacity, _MOST_ON_CPU) if engine.device.type == "cpu" else capacity

    def ask(self, picture: Image.Image | ResizedPicture, prompts: Sequence[str], file: Path | None) -> list[Result]:
        """See ``AnsweringModel``."""
        return asked_apart(prompts, self._options, lambda some, options: self._engine.run_many(picture, some, **options))

    def close(self, *, cancel: bool) -> None:
        """See ``AnsweringModel``."""
        if self._is_owned:
            self._engine.close(cancel=cancel)
