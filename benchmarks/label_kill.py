"""A labelling run that is killed again and again, against one that is left alone, with ``florence-2-demo`` on drawn scenes.

The real command as a process, ended by SIGKILL: at random moments while it loads and labels, and at random moments while it builds its
outputs. A tenth of the pictures is labelled and written first, so that there are outputs to be lost. After each kill every line of the
journal but the last must be whole, and each format's folder must be one data set, the one before the run or the one after it. At the end
every picture must stand in the journal exactly once and in every output, and the outputs must be those of the run that was left alone, byte
for byte. Answers are greedy, at most 16 tokens, in fp32, so that they do not depend on what shared a step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from florence2.scenes.scene import draw_scene
from florence2.scenes.synthetic import FIRST_FREE_SEED

FORMATS = ("coco", "yolo", "voc", "jsonl", "csv", "webdataset")
SIZE = 96
LOOK_AGAIN_S = 0.002
LATEST_S = 600.0


class Run:
    """The command on one folder.

    Args:
        pictures: what is labelled.
        output: where.
    """

    def __init__(self, pictures: Path, output: Path) -> None:
        self.pictures, self.output = pictures, output
        self.journal = output / ".florence2" / "journal.jsonl"
        self._log = output.with_suffix(".log")

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """A new process of it."""
        asked = ["-t", "od", "-m", "florence-2-demo", "--beams", "1", "--max-new-tokens", "16", "--precision", "fp32"]
        command = [sys.executable, "-m", "florence2", "label", str(self.pictures), "-o", str(self.output), *asked, "-f", ",".join(FORMATS)]
        with self._log.open("ab") as log:
            return subprocess.Popen([*command, *more], stdout=log, stderr=log)

    def finish(self, *more: str) -> float:
        """Run it to its end; the seconds that it took."""
        started = time.perf_counter()
        if self.start(*more).wait() != 0:
            raise SystemExit(f"a run has failed:\n{self._log.read_text()[-3000:]}")
        return time.perf_counter() - started

    def killed(self, is_time: Callable[[], bool], delay_s: float) -> bool:
        """Start it, and kill it so long after it is time; whether it was still running then."""
        process, started = self.start(), time.monotonic()
        while not is_time() and process.poll() is None and time.monotonic() - started < LATEST_S:
            time.sleep(LOOK_AGAIN_S)
        time.sleep(delay_s)
        was_running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        return was_running

    @property
    def num_lines(self) -> int:
        """Whole lines of the journal."""
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0

    def is_building(self) -> bool:
        """Whether it is building its outputs."""
        return any(self.journal.parent.glob("building-*")) or any(self.journal.parent.glob("ready-*"))

    def digests(self) -> dict[str, str]:
        """What each format's folder holds, names and links and content; of those that are there."""
        return {name: _digest(self.output / name) for name in FORMATS if (self.output / name).exists()}


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def draw(folder: Path, count: int) -> Path:
    """A folder with scenes."""
    folder.mkdir()
    for number in range(count):
        scene = draw_scene(np.random.default_rng([FIRST_FREE_SEED, number]), size=SIZE)
        (folder / f"{number // 500}").mkdir(exist_ok=True)
        scene.image.save(folder / f"{number // 500}" / f"{number:05}.jpg", quality=90)
    return folder


def torn_lines(journal: Path) -> int:
    """Lines at the end that are not whole.

    Raises:
        SystemExit: another line is not.
    """
    *lines, last = journal.read_bytes().split(b"\n") if journal.exists() else [b""]
    for line in lines:
        json.loads(line)
    return int(bool(last))


def kills(run: Run, count: int, num_pictures: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Each kill, with what it met: two thirds while pictures are labelled, the others while outputs are built."""
    num_building = max(1, count // 3)
    first = run.num_lines
    marks = sorted(rng.randint(first, num_pictures - 20) for _ in range(count - num_building))
    for number in range(count):
        is_building = number >= count - num_building
        mark = 0 if is_building else marks[number]
        delay_s = rng.uniform(0, num_pictures / 1000 if is_building else 0.2)
        was_running = run.killed(run.is_building if is_building else lambda mark=mark: run.num_lines > mark, delay_s)
        yield {
            "while": "outputs are built" if is_building else "pictures are labelled",
            "was_running": was_running,
            "lines": run.num_lines,
            "torn": torn_lines(run.journal),
            "left": sorted(path.name for path in run.journal.parent.iterdir() if path.name.split("-")[0] in ("building", "ready", "old")),
        }


def measure(num_pictures: int, num_kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """The figures; a figure that should be 0 or True and is not is a fault."""
    pictures = draw(folder / "pictures", num_pictures)
    for name in ("alone", "killed"):
        (folder / name).mkdir()
    alone, killed = Run(pictures, folder / "alone" / "out"), Run(pictures, folder / "killed" / "out")
    alone_s = alone.finish()
    killed.finish("--limit", str(num_pictures // 10))
    before, after = killed.digests(), alone.digests()
    met, num_mixed = [], 0
    started = time.perf_counter()
    for kill in kills(killed, num_kills, num_pictures, random.Random(seed)):
        met.append(kill)
        num_mixed += sum(digest not in (before[name], after[name]) for name, digest in killed.digests().items())
        print(kill, file=sys.stderr)
    killed.finish()
    ids = Counter(json.loads(line)["id"] for line in killed.journal.read_text().splitlines()[1:])
    wanted = {str(path) for path in pictures.rglob("*.jpg")}
    final = killed.digests()
    return {
        "pictures": num_pictures,
        "kills": met,
        "num_killed_while_running": sum(kill["was_running"] for kill in met),
        "num_outputs_that_were_neither_old_nor_new": num_mixed,
        "num_missing": len(wanted - ids.keys()),
        "num_twice": sum(count > 1 for count in ids.values()),
        "num_foreign": len(ids.keys() - wanted),
        "images_in_coco": sum(
            len(json.loads(path.read_text())["images"]) for path in (killed.output / "coco").glob("*/_annotations.coco.json")
        ),
        "outputs_equal_byte_for_byte": {name: final.get(name) == after[name] for name in FORMATS},
        "seconds_alone": round(alone_s, 1),
        "seconds_with_kills": round(time.perf_counter() - started, 1),
    }


def is_faultless(figures: dict[str, Any]) -> bool:
    """Whether all is as it should be."""
    zeros = ("num_outputs_that_were_neither_old_nor_new", "num_missing", "num_twice", "num_foreign")
    is_all = figures["images_in_coco"] == figures["pictures"] and all(figures["outputs_equal_byte_for_byte"].values())
    return is_all and not any(figures[name] for name in zeros)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print the figures, and write no file")
    settings = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="florence2-label-kill-"))
    try:
        figures = measure(settings.pictures, settings.kills, settings.seed, folder)
    finally:
        shutil.rmtree(folder)
    chosen = {"pictures": settings.pictures, "kills": settings.kills, "seed": settings.seed, "formats": FORMATS, "side": SIZE}
    print(json.dumps(figures, indent=2))
    if not settings.dry:
        print(report.write("label_kill", {**chosen, "model": "florence-2-demo", "max_new_tokens": 16, "precision": "fp32"}, figures))
    return 0 if is_faultless(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
