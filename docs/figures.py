"""Blocks of README and docs that hold figures: results of benchmarks and answers of the demo model, as Markdown.

In: the files in ``benchmarks/results`` and ``docs/pictures/answers.json``. Out: tables. What was not measured is said to be missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TRAINING_LOG = ROOT / "src" / "florence2" / "demo" / "training_log.jsonl"
ANSWERS = ROOT / "docs" / "pictures" / "answers.json"

_MEASURES = {
    "od_recall": "`<OD>`: objects found, with the right label and an overlap (IoU) of at least 0.5",
    "od_precision": "`<OD>`: boxes that are right in the same sense",
    "caption_objects": "`<CAPTION>`: captions that name exactly the shapes that are there, each in its colour",
    "ocr_words": "`<OCR>`: printed words read exactly",
    "ocr_characters": "`<OCR>`: 1 - edit distance / length",
    "segmentation_iou": "`<REFERRING_EXPRESSION_SEGMENTATION>`: mean overlap (IoU) of masks",
    "region_category": "`<REGION_TO_CATEGORY>`: exactly right",
    "region_words": "`<REGION_TO_OCR>`: exactly right",
}


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; pipes inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def decoder_step() -> str:
    """Time of one decoder step, ours and the reference's."""
    found = _result("decoder_step")
    if found is None:
        return _unmeasured("decoder_step")
    steps, settings = found["figures"]["step_ms"], found["settings"]
    rows = [(name, *(f"{steps[name][key]:.1f} ms" for key in ("median", "min", "max"))) for name in ("ours", "reference")]
    what = f"{settings['size'].capitalize()} size, {settings['precision']}, {settings['num_beams']} beams"
    return (
        f"{what}, {settings['steps']} steps of each in turn.\n\n"
        + table(("One decoder step", "Median", "Fastest", "Slowest"), rows)
        + f"\n\nReference over ours, by medians: {found['figures']['reference_over_ours']:.2f}. {_origin('decoder_step', found)}"
    )


def http() -> str:
    """What the HTTP layer adds to a request."""
    found = _result("http")
    if found is None:
        return _unmeasured("http")
    figures, settings = found["figures"], found["settings"]
    rows = [
        ("one request after another", figures["one_at_a_time_ms"]),
        ("of it JSON, base64 and pixels alone, which nobody is spared", figures["decoding_alone_ms"]),
        ("of it added by the server", figures["added_ms"]),
        (f"{settings['clients']} clients at once", figures["concurrent_ms"]),
        (f"`/healthz` while {settings['waiting']} requests wait", figures["healthz_while_100_wait_ms"]),
    ]
    return (
        f"A JPEG of {settings['base64_characters'] // 1000} kB in base64 against an engine that answers at once: "
        f"{figures['concurrent_requests_per_s']:.0f} requests/s.\n\n"
        + table(("Time", "p50", "p99"), ((name, f"{part['p50']:.1f} ms", f"{part['p99']:.1f} ms") for name, part in rows))
        + f"\n\n{_origin('http', found)}"
    )


def parity_full() -> str:
    """Differences to the reference at full size."""
    found = _result("parity_full")
    if found is None:
        return _unmeasured("parity_full")
    rows = []
    for name, figures in found["figures"].items():
        largest, equal = figures["largest_difference"], list(figures["ids_equal"].values())
        differences = (f"{largest[key]:.1e}" for key in ("image_tokens", "encoder", "logits"))
        gaps = [abs(gap) for gap in figures.get("score_gaps", {}).values()]
        rows.append((name, *differences, f"{sum(equal)} of {len(equal)}", f"{max(gaps):.1e}" if gaps else ""))
    return (
        f"Random weights, {found['settings']['precision']}, greedy and three beams, {found['settings']['new_tokens']} new tokens. "
        "Largest absolute difference to the reference, and where "
        "the ids of an answer differ, the largest gap between the reference's scores of the two answers (mean log-probability):\n\n"
        + table(("Checkpoint", "Image tokens", "Encoder", "Logits", "Answers with equal ids", "Gap"), rows)
        + f"\n\n{_origin('parity_full', found)}"
    )


def demo_accuracy() -> str:
    """How well the demo model answers."""
    found = _result("demo_accuracy")
    if found is None:
        return _unmeasured("demo_accuracy")
    figures = found["figures"]
    groups = {"Value": figures} if all("value" in figure for figure in figures.values()) else figures
    measures = list(dict.fromkeys(measure for group in groups.values() for measure in group))
    rows = []
    for measure in measures:
        cells = [group.get(measure) for group in groups.values()]
        count = next(cell["count"] for cell in cells if cell)
        rows.append((_MEASURES.get(measure, measure), count, *(f"{cell['value']:.3f}" if cell else "" for cell in cells)))
    return table(("Measure", "Things measured", *groups), rows) + f"\n\n{_origin('demo_accuracy', found)}"


def demo_training() -> str:
    """How long the demo model was trained."""
    last = json.loads(TRAINING_LOG.read_text(encoding="utf-8").splitlines()[-1])
    return f"It saw {last['images']:,} pictures, each once, in {last['seconds'] / 60:.0f} minutes."


def _result(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _unmeasured(name: str) -> str:
    return f"Not measured yet (`benchmarks/results/{name}.json` is not there)."


def _origin(name: str, found: Mapping[str, Any]) -> str:
    machine, versions = found["machine"], found["machine"]["versions"]
    instructions = f" ({', '.join(machine['instructions'])})" if machine["instructions"] else ""
    return (
        f"{machine['processor']}{instructions}, {machine['threads']} threads, torch {versions['torch']}, "
        f"transformers {versions['transformers']}; {found['measured']}, `benchmarks/results/{name}.json`."
    )


def answers() -> str:
    """What the demo model answered about the pictures shown."""
    if not ANSWERS.is_file():
        return "The pictures' answers are not there yet (`docs/pictures/answers.json`)."
    found = json.loads(ANSWERS.read_text(encoding="utf-8"))
    return "\n".join(["```json", *(json.dumps(answer, ensure_ascii=False) for answer in found.values()), "```"])
