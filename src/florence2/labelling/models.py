"""Which model answers in a labelling run: one that is loaded, an engine that is there, or one of a server.

In: what a user names. Out: the model's name, which stands in the journal, and when there is a picture to ask about, the model itself. Knows
nothing of pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.errors import InvalidOption, InvalidRequest
from florence2.extras import requires
from florence2.labelling.answering import AnsweringModel, EngineModel
from florence2.labelling.options import LabelOptions
from florence2.tiling.tiles import Tiles, read_tiles
from florence2.weights.aliases import DEMO, DEMO_IS, REAL

if TYPE_CHECKING:
    from florence2.engine.engine import Engine

DEMO_ANSWERS = f"no --model is given, so {DEMO} answers, {DEMO_IS}; take --model {REAL} for those"
"""What is said where nobody named a model."""


@dataclass(frozen=True)
class ModelChoice:
    """What was named; arguments of ``label``."""

    model: str | os.PathLike[str] | None
    adapters: Sequence[str | os.PathLike[str]]
    device: str
    precision: str
    engine: Engine | str | None
    api_key: str | None
    concurrency: int | None

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            InvalidOption: what does not.
        """
        is_server = isinstance(self.engine, str)
        if is_server and (self.model is None or self.adapters or (self.device, self.precision) != ("auto", "auto")):
            raise InvalidOption(
                "engine= goes with model=, one of the server's models, and without adapter=, device= and precision=", field="engine"
            )
        if isinstance(self.engine, str):
            _check_address(self.engine)
        for name, value in {"concurrency": self.concurrency, "api_key": self.api_key}.items():
            if value is not None and not is_server:
                raise InvalidOption(f"{name}= goes with engine=, the address of a server; leave {name} out", field=name)
        if self.concurrency is not None and self.concurrency < 1:
            raise InvalidOption(f"concurrency must be at least 1, got {self.concurrency}", field="concurrency")

    @property
    def name(self) -> str:
        """The model with its adapters; folders by their absolute paths, so that the current folder does not matter."""
        return " + ".join(_named(one) for one in (self.named, *self.adapters))

    @property
    def named(self) -> str | Path:
        """The model without its adapters, as it was named; the demo's name, or that of an engine that is there, where it was not."""
        return self._own_name if self.model is None else self.model if isinstance(self.model, str) else Path(self.model)

    def load(self, options: LabelOptions, num_prompts: int, on_message: Callable[[str], object]) -> AnsweringModel:
        """The model, ready to answer.

        Args:
            options: of the run.
            num_prompts: how many prompts each picture is asked at first.
            on_message: called with a line where nobody named a model.

        Raises:
            Florence2Error: it can't be loaded, or an option is wrong.
        """
        if isinstance(self.engine, str):
            return self._served(self.engine, options)
        cut = read_tiles(options.tiles, options.tile_overlap)
        request = {**options.search, **({} if cut is None else {"tiles": cut})}
        num_rows = num_prompts * (1 if cut is None else _num_parts(cut))
        if self.engine is not None:
            return EngineModel(self.engine, request, num_rows, is_owned=False)
        with requires("engine", "labelling without a server"):
            from florence2.engine.engine import load

        if self.model is None:
            on_message(DEMO_ANSWERS)
        engine = load(self.model or DEMO, device=self.device, precision=self.precision, adapters=self.adapters)
        return EngineModel(engine, request, num_rows)

    def _served(self, api_url: str, options: LabelOptions) -> AnsweringModel:
        from florence2.labelling.served import DEFAULT_CONCURRENCY, ServedModel

        tiles = {"tiles": options.tiles, "tile_overlap": options.tile_overlap}
        request = {**options.search, **{name: value for name, value in tiles.items() if value is not None}}
        concurrency = self.concurrency or DEFAULT_CONCURRENCY
        return ServedModel(api_url, str(self.model), request, api_key=self.api_key, concurrency=concurrency)

    @property
    def _own_name(self) -> str:
        """The name of an engine that was made elsewhere; the demo's where there is none."""
        if self.engine is None or isinstance(self.engine, str):
            return DEMO
        return self.engine.checkpoint.folder.name


def _check_address(address: str) -> None:
    """Refuse what is no address, before a folder is made, in the words of ``engine``."""
    from florence2.client.wire import server_url

    try:
        server_url(address)
    except InvalidRequest as error:
        raise InvalidOption(error.message.replace("api_url must", "engine= must", 1), field="engine") from error


def _named(model: str | os.PathLike[str]) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else os.fspath(model)


def _num_parts(cut: Tiles) -> int:
    """About how many parts of a picture are asked about; of a side the number depends on the picture."""
    columns, rows = cut.grid or (2, 2)
    return columns * rows + 1
