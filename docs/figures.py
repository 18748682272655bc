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
TRAINING_LOG = ROOT / "benchmarks" / "results" / "demo_training_log.jsonl"
ANSWERS = ROOT / "docs" / "pictures" / "answers.json"

# The figure that stands for a task, and what was aimed at; errors are better when lower.
_MAIN = (
    ("<OD>", "ap50", 0.90),
    ("<OD>", "ap", 0.65),
    ("<DENSE_REGION_CAPTION>", "recall", 0.90),
    ("<REGION_PROPOSAL>", "recall", 0.90),
    ("<CAPTION>", "phrases", 0.85),
    ("<CAPTION_TO_PHRASE_GROUNDING>", "accuracy", 0.90),
    ("<OPEN_VOCABULARY_DETECTION>", "accuracy", 0.90),
    ("<REFERRING_EXPRESSION_SEGMENTATION>", "mean_iou", 0.75),
    ("<REGION_TO_SEGMENTATION>", "mean_iou", 0.75),
    ("<REGION_TO_CATEGORY>", "exact", 0.95),
    ("<REGION_TO_DESCRIPTION>", "exact", 0.90),
    ("<OCR>", "word_accuracy", 0.90),
    ("<OCR>", "character_error", 0.05),
    ("<OCR_WITH_REGION>", "f1", 0.80),
    ("<REGION_TO_OCR>", "exact", 0.90),
)
_REFERENCES = ("transformers fp32", "transformers bf16")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; pipes inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


# What the README shows of the comparison: its cases, shorter; the chart has them all, the table the first and the last two.
SHORT_CASES = {
    "base, one request, 3 beams, 33 tokens": "one question, 3 beams, 33 tokens",
    "base, one request, 3 beams, 128 tokens": "one question, 3 beams, 128 tokens",
    "base, one request, greedy, 33 tokens": "one question, greedy, 33 tokens",
    "base, 16 requests at once, 16 images, 3 beams, 33 tokens": "16 questions at once, 16 pictures",
    "base, five tasks on one image, 3 beams, 33 tokens": "five questions on one picture",
}


def measured() -> str:
    """What the README says of speed, exactness and accuracy, in one small table."""
    results = {name: _result(name) for name in ("compare", "parity_full", "http", "demo_accuracy")}
    missing = [name for name, found in results.items() if found is None]
    if missing:
        return _unmeasured(missing[0])
    figures = {name: found["figures"] for name, found in results.items() if found is not None}
    accuracy = figures["demo_accuracy"]["greedy"]
    logits = max(one["largest_difference"]["logits"] for one in figures["parity_full"].values())
    rows = [
        *((f"Speed: {SHORT_CASES[name]}", ratio) for name, ratio in _table_ratios(figures["compare"]["cases"])),
        ("Logits, largest difference, fp32", f"{logits:.0e}"),
        ("The server adds to a request", f"{figures['http']['added_ms']['p50']:.1f} ms"),
        ("Small model: boxes, AP at IoU 0.5", _value(accuracy, "<OD>", "ap50")),
        ("Small model: words read", _value(accuracy, "<OCR>", "word_accuracy")),
    ]
    found = results["compare"]
    note = f"Speed: times faster than `transformers` in bf16, ours in {found['settings']['auto']}, two processor cores." if found else ""
    return table(("Measured", ""), rows) + f"\n\n{note}{_without_bf16()}"


def _without_bf16() -> str:
    """A line on processors without bfloat16: the smallest and the largest ratio."""
    if (found := _result("compare_without_bf16")) is None:
        return ""
    ratios = [case["times_faster"]["ours int8"][_REFERENCES[0]] for case in found["figures"]["cases"].values()]
    return f"\nOn two cores with AVX2 alone, `int8` is {min(ratios):.1f} to {max(ratios):.1f} times faster than `transformers` in fp32."


def _table_ratios(cases: Mapping[str, Any]) -> list[tuple[str, str]]:
    ratios = [(name, cases[name]["times_faster"]["ours auto"]) for name in SHORT_CASES if name in cases]
    return [(name, f"{found[_REFERENCES[1]]:.1f} x") for name, found in ratios if _REFERENCES[1] in found]


def speed_chart() -> dict[str, dict[str, float]]:
    """The numbers of the README's chart: by case, and by who is compared with whom, how many times faster."""
    found = _result("compare")
    cases = {} if found is None else found["figures"]["cases"]
    return {
        short: {f"{own} / {other}": ratio for own, others in cases[name]["times_faster"].items() for other, ratio in others.items()}
        for name, short in SHORT_CASES.items()
        if name in cases
    }


def compare() -> str:
    """All times of the comparison."""
    found = _result("compare")
    if found is None:
        return _unmeasured("compare")
    blocks = []
    for name, figures in found["figures"]["cases"].items():
        rows = []
        for contender, times in figures["ms"].items():
            ratios = figures["times_faster"].get(contender, {})
            rate = f"{1000 * figures['requests'] / times['median']:.2f}"
            cells = [f"{ratios[other]:.2f}" if other in ratios else "" for other in _REFERENCES]
            rows.append((contender, *(_seconds(times[key]) for key in ("median", "min", "max")), rate, *cells))
        header = ("", "Median", "Fastest", "Slowest", "Requests/s", *(f"x {reference}" for reference in _REFERENCES))
        blocks.append(f"**{name[0].upper()}{name[1:]}**\n\n{table(header, rows)}")
    automatic, repeats = found["settings"]["auto"], found["settings"]["repeats"]
    note = (
        f"`ours auto` is {automatic} on this machine. {repeats} repeats (half as many of the longest cases) after one that counts nothing."
    )
    return "\n\n".join([note, *blocks, _origin("compare", found)])


def processes() -> str:
    """Memory and time to be ready."""
    found = _result("compare")
    if found is None:
        return _unmeasured("compare")
    everyone = found["figures"]["processes"]
    whole = everyone["transformers fp32"]["peak_mib"]
    rows = [
        (name, f"{one['ready_s']:.1f} s", f"{one['first_answer_s']:.1f} s", f"{one['peak_mib']:.0f} MiB", f"{one['peak_mib'] / whole:.0%}")
        for name, one in everyone.items()
    ]
    header = ("Base, a process of its own", "Ready", "First answer", "Peak memory", "of `transformers` fp32")
    return table(header, rows) + f"\n\n{_origin('compare', found)}"


def roofline(name: str = "roofline") -> str:
    """How far from the floor, by the results of that name."""
    found = _result(name)
    if found is None:
        return _unmeasured(name)
    rows = []
    for precision, figures in found["figures"].items():
        for part in ("tower", "encoder", "decoding", "all"):
            floor, own = (figures[key].get(part) or sum(figures[key].values()) for key in ("floor_ms", "measured_ms"))
            rows.append((precision, part, f"{floor:.0f} ms", f"{own:.0f} ms", f"{figures['measured_over_floor'][part]:.2f}"))
    rates = ", ".join(f"{name} {figures['matrix_gflops']:.0f}" for name, figures in found["figures"].items())
    return (
        f"Best rates here: {rates} billion operations/s in products, {found['settings']['read_gb_per_s']} GB/s from memory.\n\n"
        + table(("Precision", "Part", "Floor", "Measured", "Measured / floor"), rows)
        + f"\n\n{_origin(name, found)}"
    )


def precisions(name: str = "precisions") -> str:
    """What fewer bits cost the demo model, by the results of that name."""
    found = _result(name)
    if found is None:
        return _unmeasured(name)
    measures, equal = found["figures"]["measures"], found["figures"]["answers_equal_to_fp32"]
    tasks = [
        (f"`{task}`", count["count"], *(f"{equal[precision][task]['equal'] / count['count']:.0%}" for precision in equal))
        for task, count in next(iter(equal.values())).items()
    ]
    return (
        _by_task(measures)
        + "\n\nAnswers with the very tokens of fp32; a place that moves by one thousandth of the image counts as another answer:\n\n"
        + table(("Task", "Answers", *equal), tasks)
        + f"\n\n{_origin(name, found)}"
    )


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s"


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
    """How well the demo model answers: every figure."""
    found = _result("demo_accuracy")
    if found is None:
        return _unmeasured("demo_accuracy")
    return f"{_by_task(found['figures'])}\n\n{_origin('demo_accuracy', found)}"


def demo_accuracy_short() -> str:
    """How well the demo model answers: what was aimed at."""
    found = _result("demo_accuracy")
    if found is None:
        return _unmeasured("demo_accuracy")
    searches = found["figures"]
    rows = [
        (f"`{tag}`", f"`{name}`", f"{aim:.2f}", *(_value(figures, tag, name) for figures in searches.values())) for tag, name, aim in _MAIN
    ]
    return table(("Task", "Figure", "Aimed at", *searches), rows) + f"\n\n{_origin('demo_accuracy', found)}"


def fine_tune() -> str:
    """What the tutorial taught the demo model, and what it forgot."""
    found = _result("fine_tune")
    if found is None:
        return _unmeasured("fine_tune")
    figures, seconds = found["figures"], found["settings"]["seconds"]
    arrows = [(name, *(_value(figures[f"arrows-{when}"], "<OD>", name) for when in ("before", "after"))) for name in ("ap50", "ap")]
    others = [
        (f"`{tag}` `{name}`", *(_value(figures[f"others-{when}"], tag, name) for when in ("before", "after"))) for tag, name, _ in _MAIN
    ]
    (training,) = (time for line, time in seconds.items() if " train " in line)
    rows = [*((f"arrows: `<OD>` `{name}`", *values) for name, *values in arrows), *others]
    return f"{table(('', 'Before', 'After'), rows)}\n\nTraining took {training:.0f} s. {_origin('fine_tune', found)}"


def _value(figures: Mapping[str, Mapping[str, Mapping[str, float]]], tag: str, name: str) -> str:
    one = figures.get(tag, {}).get(name)
    return "not measured" if one is None else f"{one['value']:.3f}"


def _by_task(columns: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> str:
    """Figures by task and name, a column each."""
    first = next(iter(columns.values()))
    rows = [
        (f"`{tag}`", f"`{name}`", one["count"], *(_value(figures, tag, name) for figures in columns.values()))
        for tag, named in first.items()
        for name, one in named.items()
    ]
    return table(("Task", "Figure", "Things measured", *columns), rows)


def demo_training() -> str:
    """How long the demo model was trained."""
    lines = map(json.loads, TRAINING_LOG.read_text(encoding="utf-8").splitlines())
    runs = {line.get("run", 1): line for line in lines}  # the last line of each
    told = [f"run {number} saw {last['images']:,} pictures in {last['seconds'] / 60:.0f} minutes" for number, last in runs.items()]
    return f"Each picture was seen once: {', '.join(told)}."


def _result(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _unmeasured(name: str) -> str:
    return f"Not measured yet (`benchmarks/results/{name}.json` is not there)."


def _origin(name: str, found: Mapping[str, Any]) -> str:
    machine, versions = found["machine"], found["machine"]["versions"]
    instructions = f" ({', '.join(machine['instructions'])})" if machine["instructions"] else ""
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    return (
        f"{gpu}{machine['processor']}{instructions}, {machine['threads']} threads, torch {versions['torch']}, "
        f"transformers {versions['transformers']}; {found['measured']}, `benchmarks/results/{name}.json`."
    )


def neighbours() -> str:
    """An answer beside busy neighbours, before and after."""
    found = _result("neighbours")
    if found is None:
        return _unmeasured("neighbours")
    by_precision = found["figures"]
    names = list(next(iter(next(iter(by_precision.values())).values())))
    rows = [
        [precision, kind, *(f"{figures[name]['median']:.0f} ({figures[name]['min']:.0f} to {figures[name]['max']:.0f})" for name in names)]
        for precision, kinds in by_precision.items()
        for kind, figures in kinds.items()
    ]
    return f"{table(['Precision', 'Neighbours', *(f'{name}: median (range)' for name in names)], rows)}\n\n{_origin('neighbours', found)}"


def calibration() -> str:
    """What scores are worth, by task."""
    return _calibrated("tasks", "Task")


def calibration_worlds() -> str:
    """What scores are worth, by kind of scene."""
    return _calibrated("worlds", "Scenes")


def _calibrated(part: str, title: str) -> str:
    found = _result("calibration")
    if found is None:
        return _unmeasured("calibration")
    rows = [
        (
            f"`{name}`" if name.startswith("<") else name,
            one["objects"],
            f"{one['right']:.0%}",
            *(f"{one[f'{ranking} calibration error']:.3f}" for ranking in ("before", "score")),
            *(f"{one[f'{ranking} ap']:.3f}" for ranking in ("constant", "before", "score")),
            *(f"{one[f'{ranking} kept']:.0%}" for ranking in ("before", "score")),
            "none" if one["score precision"] is None else f"{one['score precision']:.0%}",
        )
        for name, one in found["figures"][part].items()
    ]
    header = (
        title,
        "Objects",
        "right",
        "ECE before",
        "ECE",
        "AP constant",
        "AP before",
        "AP",
        "Kept at 0.5 before",
        "Kept at 0.5",
        "of them right",
    )
    note = f"{found['settings']['scenes']} scenes of each of four kinds, greedy search. "
    return f"{table(header, rows)}\n\n{note}{_origin('calibration', found)}"


def score_cost() -> str:
    """What scores cost a step."""
    found = _result("score_cost")
    if found is None:
        return _unmeasured("score_cost")
    rows = [
        (name, f"{one['without_ms']:.2f} ms", f"{one['with_ms']:.2f} ms", f"{one['added_alone_us']:.0f} µs", f"{one['added_share']:.2%}")
        for name, one in found["figures"].items()
    ]
    turns = found["settings"]["turns"]
    header = ("", "A step without scores", "with scores", "Added, measured alone", "of a step")
    note = (
        "Base size with random weights that name nothing but places, a box every four tokens, on one thread of a busy machine: of each "
        f"step the least processor time of {turns} turns with and {turns} without scores in alternation. These two columns differ by "
        "some hundredths in either direction from run to run; what scores add is therefore measured alone, by its parts."
    )
    return f"{table(header, rows)}\n\n{note} {_origin('score_cost', found)}"


def environments() -> str:
    """Where the wheel was installed and tried, and what came of it."""
    path = RESULTS / "environments.json"
    if not path.exists():
        return "Not tried yet: `python -m tests.environments lowest --keep`."
    header = ("Versions", "Python", "torch", "Tests", "Passed", "Failed", "Where")
    return table(
        header,
        (
            (row["kind"], row["python"], row["versions"]["torch"], row["tests"], row["passed"], len(row["failed"]), row["system"])
            for row in json.loads(path.read_text(encoding="utf-8"))["environments"]
        ),
    )


def answers() -> str:
    """What the demo model answered about the pictures shown."""
    if not ANSWERS.is_file():
        return "The pictures' answers are not there yet (`docs/pictures/answers.json`)."
    found = json.loads(ANSWERS.read_text(encoding="utf-8"))
    return "\n".join(["```json", *(json.dumps(answer, ensure_ascii=False) for answer in found.values()), "```"])
