"""What a training run tells: a line of JSON for every few steps, a picture of the loss, and TensorBoard's files where they are wanted.

In: figures by step. Out: ``log.jsonl`` and ``loss.svg`` in the run's folder. A run that goes on appends to what it told before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from florence2.extras import requires
from florence2.training.plot import loss_plot

LOG, PLOT = "log.jsonl", "loss.svg"


class RunLog:
    """The log of one run.

    Args:
        folder: the run's.
        num_steps: drop what was told of later steps, which a run that was cut off takes again.
        tensorboard: write TensorBoard's files as well.

    Raises:
        MissingExtra: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, num_steps: int = 0, *, tensorboard: bool = False) -> None:
        self._folder = folder
        self.lines = [line for line in read_log(folder) if line["step"] <= num_steps]
        (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        self._writer = _tensorboard(folder, num_steps) if tensorboard else None

    def tell(self, step: int, **figures: float) -> None:
        """Add a line: ``loss`` of training or ``validation`` loss, and whatever else."""
        line = {"step": step, **{name: round(value, 6) for name, value in figures.items()}}
        self.lines.append(line)
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def plot(self) -> None:
        """Draw the curves so far; nothing where there is no point yet."""
        picture = loss_plot(self.lines)
        if picture is not None:
            (self._folder / PLOT).write_text(picture, encoding="utf-8")

    def close(self) -> None:
        """Draw a last time and let TensorBoard's files go."""
        self.plot()
        if self._writer is not None:
            self._writer.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; none where there is no log."""
    path = folder / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _tensorboard(folder: Path, num_steps: int) -> Any:
    with requires("tensorboard", "--tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder / "tensorboard"), purge_step=num_steps + 1)
