"""Labelling on Ray Data, with its driver killed half-way, and its throughput against a run without Ray, on one machine.

20,000 drawn scenes (some hundred are drawn by ``florence2.scenes``, the others are these with a mark of their own in a corner, so that no
two files are the same) through ``florence2 label --ray``, with a random checkpoint of tiny size, so that what is shown is the pipeline and
not a model. The driver gets SIGKILL when half of the pictures are written, and the same command goes on. At the end every picture must
stand in the run exactly once for those who read it; how many rows the parts hold of a picture is counted as well, and how many answers the
kill has cost. Then ``florence-2-demo`` about fewer pictures: without Ray, and with one and with two engines, each timed from the first to
the last answer and as a whole. Greedy, at most 16 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from PIL import Image

from benchmarks import report
from fixtures.checkpoints import write_checkpoint
from florence2.labelling.records import Records
from florence2.scenes.scene import draw_scene
from florence2.scenes.synthetic import FIRST_FREE_SEED

SIZE = 96
NUM_SCENES = 400
IN_A_FOLDER = 1000
LOOK_S = 0.2
DEMO = "florence-2-demo"
PARTS = ("kill", "throughput")
ASKED = ("-t", "od", "--beams", "1", "--max-new-tokens", "16", "--precision", "fp32")


def draw(folder: Path, count: int) -> Path:
    """A folder with so many different pictures."""
    scenes = [np.asarray(draw_scene(np.random.default_rng([FIRST_FREE_SEED, number]), size=SIZE).image) for number in range(NUM_SCENES)]
    for number in range(count):
        pixels = scenes[number % NUM_SCENES].copy()
        pixels[0, :20, 0] = [255 * (number >> bit & 1) for bit in range(20)]
        path = folder / f"{number // IN_A_FOLDER}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)
    return folder


class Run:
    """The command on one folder.

    Args:
        pictures: what is labelled.
        output: where.
        model: by which model.
        more: options behind the common ones.
    """

    def __init__(self, pictures: Path, output: Path, model: str, *more: str) -> None:
        self.output, self.parts = output, output / ".florence2" / "parts"
        self._log = output.with_suffix(".log")
        self._command = [sys.executable, "-m", "florence2", "label", str(pictures), "-o", str(output), "-m", model, *ASKED, *more, "--json"]

    def start(self) -> subprocess.Popen[bytes]:
        """A new process of it, and with it a new group."""
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> float:
        """Run it to its end; the seconds that it took."""
        started = time.perf_counter()
        if (code := self.start().wait()) != 0:
            raise SystemExit(f"a run has failed (exit code {code}):\n{self._log.read_text()[-3000:]}")
        return time.perf_counter() - started

    def kill_at(self, num_written: int) -> dict[str, Any]:
        """Start it, kill the driver when so many pictures are written, and say what it was like."""
        process, started = self.start(), time.perf_counter()
        while self.num_rows() < num_written and process.poll() is None:
            time.sleep(LOOK_S)
        was_running = process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seconds = time.perf_counter() - started
        time.sleep(10)  # until its workers have ended, too
        return {"was_running": was_running, "seconds": round(seconds, 1), "written": self.num_rows(), "parts": self.num_parts()}

    def num_parts(self) -> int:
        """Parts that are there."""
        return len(list(self.parts.glob("part-*.parquet")))

    def num_rows(self) -> int:
        """Rows of all parts, by what stands at their ends."""
        return sum(parquet.read_metadata(path).num_rows for path in self.parts.glob("part-*.parquet"))


def measure_kill(pictures: Path, output: Path, model: str, count: int, engines: int) -> dict[str, Any]:
    """What a kill half-way costs; figures that should be 0 and are not are faults."""
    run = Run(pictures, output, model, "--ray", "--engines", str(engines))
    killed = run.kill_at(count // 2)
    seconds = run.finish()
    rows: Counter[str] = Counter()
    sizes = []
    for path in run.parts.glob("part-*.parquet"):
        ids = parquet.read_table(path, columns=["id"])["id"].to_pylist()
        rows.update(ids)
        sizes.append(len(ids))
    wanted = {str(path) for path in pictures.rglob("*.jpg")}
    read = Counter(record["id"] for record in Records(output))
    return {
        "pictures": count,
        "engines": engines,
        "killed": killed,
        "seconds_after_the_kill": round(seconds, 1),
        "num_missing": len(wanted - read.keys()),
        "num_twice_for_readers": sum(times > 1 for times in read.values()),
        "num_foreign": len(read.keys() - wanted),
        "num_twice_in_parts": sum(times > 1 for times in rows.values()),
        "pictures_a_part": {"median": int(np.median(sizes)), "min": min(sizes), "max": max(sizes)},
    }


def measure_throughput(pictures: Path, folder: Path, count: int, engines: Sequence[int]) -> dict[str, Any]:
    """Pictures a second without Ray and with so many engines, the start included and left out."""
    small, large = count // 4, count
    figures: dict[str, Any] = {}
    for name, more in {"without --ray": (), **{f"--ray --engines {one}": ("--ray", "--engines", str(one)) for one in engines}}.items():
        place = folder / name.replace(" ", "")
        place.mkdir()
        times = [Run(pictures, place / str(limit), DEMO, *more, "--limit", str(limit)).finish() for limit in (small, large)]
        figures[name] = {
            "seconds": round(times[1], 1),
            "pictures_per_s": round(large / times[1], 1),
            "pictures_per_s_without_the_start": round((large - small) / (times[1] - times[0]), 1) if times[1] > times[0] else None,
        }
        print(name, json.dumps(figures[name]), file=sys.stderr, flush=True)
    return figures


def is_faultless(figures: dict[str, Any]) -> bool:
    """Whether all is as it should be."""
    return figures["killed"]["was_running"] and not any(figures[name] for name in ("num_missing", "num_twice_for_readers", "num_foreign"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--compared", type=int, default=1000, help="pictures of the runs that are compared")
    parser.add_argument("--engines", type=int, default=1, help="of the run that is killed")
    parser.add_argument("--only", choices=PARTS, help="measure this alone, and keep what the results have of the other")
    parser.add_argument("--dry", action="store_true", help="print the figures, and write no file")
    settings = parser.parse_args(arguments)
    path = Path(__file__).parent / "results" / "cluster_label.json"
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["figures"] if settings.only and path.is_file() else {}
    folder = Path(tempfile.mkdtemp(prefix="florence2-cluster-label-"))
    try:
        for part in (settings.only,) if settings.only else PARTS:
            if part == "kill":
                pictures = draw(folder / "pictures", settings.pictures)
                (folder / "killed").mkdir()
                model = write_checkpoint(folder / "tiny")
                figures[part] = measure_kill(pictures, folder / "killed" / "out", str(model), settings.pictures, settings.engines)
            else:
                pictures = draw(folder / "compared", settings.compared)
                figures[part] = measure_throughput(pictures, folder, settings.compared, (1, 2))
            print(json.dumps({part: figures[part]}, indent=2), flush=True)
    finally:
        shutil.rmtree(folder)
    if not settings.dry:
        asked = {"killed": "tiny", "compared_model": DEMO, "side": SIZE, "asked": " ".join(ASKED), "compared": settings.compared}
        print(report.write("cluster_label", {"pictures": settings.pictures, "engines": settings.engines, **asked}, figures))
    return 0 if "kill" not in figures or is_faultless(figures["kill"]) else 1


if __name__ == "__main__":
    sys.exit(main())
