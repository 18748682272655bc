"""The log of a training run: a line of JSON for every few steps, a picture of the loss, and TensorBoard's files where they are wanted.

In: values by step. Out: ``log.jsonl`` and ``loss.svg`` in the run's folder. A run that goes on appends to its log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from florence2.extras import requires
from florence2.training.plot import loss_plot

LOG, PLOT = "log.jsonl", "loss.svg"


class RunLog:
    """The log of one run.

    Args:
        folder: the run's.
        num_steps: lines of later steps are dropped; a run that was cut off takes these steps again.
        tensorboard: write TensorBoard's files as well.

    Raises:
        MissingExtra: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, num_steps: int = 0, *, tensorboard: bool = False) -> None:
        self._folder = folder
        self.lines = [line for line in read_log(folder) if line["step"] <= num_steps]
        (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        self._writer = _tensorboard(folder, num_steps) if tensorboard else None

    def report(self, step: int, **values: float | Mapping[str, float]) -> None:
        """Add a line: ``loss`` of training or ``validation`` loss, and whatever else."""
        line = {"step": step, **{name: value if isinstance(value, Mapping) else round(value, 6) for name, value in values.items()}}
        self.lines.append(line)
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                if not isinstance(value, Mapping):
                    self._writer.add_scalar(name, value, step)

    def plot(self) -> None:
        """Draw the curves so far, once there is a point."""
        picture = loss_plot(self.lines)
        if picture is not None:
            (self._folder / PLOT).write_text(picture, encoding="utf-8")

    def close(self) -> None:
        """Draw a last time and close TensorBoard's files."""
        self.plot()
        if self._writer is not None:
            self._writer.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; empty where there is no log."""
    path = folder / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _tensorboard(folder: Path, num_steps: int) -> Any:
    with requires("tensorboard", "tensorboard=True"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder / "tensorboard"), purge_step=num_steps + 1)
