"""The generated parts of the pages are what the code says now, whatever terminal they are made in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import curves, figures, generate
from docs.gpu_figures import gpu, gpu_one_request
from docs.labelling_figures import label
from docs.load_figures import load_test
from docs.streaming_figures import streaming
from florence2.tasks import TASKS
from tests.docs.markdown import ROOT

FINE_TUNED = ("arrows-before", "arrows-after", "others-before", "others-after")


def test_every_block_is_up_to_date():
    outdated = [str(path.relative_to(ROOT)) for path in generate.update(ROOT, check=True)]
    assert outdated == [], "run make docs"


def test_neither_terminal_nor_torch_has_a_say():
    script = (
        "import json, sys; from docs import generate\n"
        "print(json.dumps([block() for block in generate.BLOCKS.values()])); sys.exit('torch' in sys.modules)"
    )
    narrow = {**os.environ, "COLUMNS": "30", "TERMINAL_WIDTH": "30", "FORCE_COLOR": "1", "TERM": "xterm-256color", "LANG": "C"}
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=narrow, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == [block() for block in generate.BLOCKS.values()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The pages alone, to be spoilt."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    generate.update(tmp_path, check=False)
    return tmp_path


@pytest.mark.slow
def test_drift_is_found_and_mended(copy: Path):
    page = copy / "docs" / "tasks.md"
    good = page.read_text(encoding="utf-8")
    page.write_text(good.replace("Locate {text} in the image.", "Find {text}."), encoding="utf-8")
    assert generate.update(copy, check=True) == [page]
    assert "Find {text}." in page.read_text(encoding="utf-8")
    assert generate.update(copy, check=False) == [page]
    assert page.read_text(encoding="utf-8") == good


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- generated: nothing -->\n<!-- end generated -->\n", "unknown block nothing"),
        ("<!-- generated: tasks -->\n", "needs a line"),
        ("<!-- generated: tasks -->\n<!-- generated: aliases -->\n<!-- end generated -->\n", "needs a line"),
        ("<!-- end generated -->\n", "needs a line"),
    ],
)
def test_wrong_markers_are_refused_by_page(copy: Path, text: str, message: str):
    (copy / "docs" / "new.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"new\.md.*{message}"):
        generate.update(copy, check=True)


def test_every_block_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in generate.pages(ROOT))
    assert [name for name in generate.BLOCKS if f"<!-- generated: {name} -->" not in text] == []


def test_all_tasks_are_in_both_tables():
    assert [tag for tag in TASKS if f"`{tag}`" not in generate.prompts()] == []
    assert [task.name for task in TASKS.values() if f"`{task.name}`" not in generate.tasks()] == []


def test_docstrings_become_markdown():
    assert generate.prose("one ``<s>`` and :class:`~a.B` of <OD>") == "one `<s>` and `a.B` of &lt;OD>"
    assert generate.first_sentence("A thing: its parts.\nAnd more. Then this.") == "A thing: its parts"
    assert figures.table(("a",), [("x | y",)]).endswith("| x \\| y |")


def test_missing_results_are_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for block in (
        figures.compare,
        figures.measured,
        figures.processes,
        figures.roofline,
        figures.precisions,
        gpu,
        gpu_one_request,
        figures.neighbours,
        figures.http,
        streaming,
        label,
        load_test,
        figures.parity_full,
        figures.demo_accuracy,
        figures.demo_accuracy_short,
        figures.fine_tune,
    ):
        assert block().startswith("Not measured yet")


def test_results_become_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine = '{"processor": "P", "instructions": [], "threads": 2, "versions": {"torch": "1", "transformers": "2"}}'
    head = f'"measured": "2026-01-02", "machine": {machine}'
    measured = {
        "compare": (
            '"auto": "bf16", "repeats": 3',
            '"cases": {"base, one request": {"requests": 2, "ms": {"ours auto": {"median": 500, "min": 400, "max": 600}, '
            '"transformers bf16": {"median": 2000, "min": 1900, "max": 2100}}, '
            '"times_faster": {"ours auto": {"transformers bf16": 4.0}}}}, '
            '"processes": {"ours auto": {"ready_s": 2, "first_answer_s": 3, "peak_mib": 500}, '
            '"transformers fp32": {"ready_s": 4, "first_answer_s": 9, "peak_mib": 2000}}',
        ),
        "roofline": (
            '"read_gb_per_s": 30',
            '"bf16": {"matrix_gflops": 400, "floor_ms": {"tower": 100, "encoder": 10, "decoding": 90}, '
            '"measured_ms": {"tower": 150, "encoder": 20, "decoding": 130}, '
            '"measured_over_floor": {"tower": 1.5, "encoder": 2.0, "decoding": 1.44, "all": 1.5}}',
        ),
        "gpu": (
            '"callers": 64, "tokens": 16',
            '"base": {"parts": {"bf16": {"tower": {"1": {"ms": 3.94, "floor_ms": 0.5}}, "prompt_ms": 1.5, '
            '"step": {"3": {"ms": 0.55, "choosing_ms": 0.06, "floor_ms": 0.06}}}}, '
            '"captions": {"greedy": {"ours bf16": {"captions_per_s": 144.4, "peak_mib": 3040}}}}',
        ),
        "gpu_one_request": (
            '"tokens": 128',
            '"ours bf16": {"greedy": [100, 140, 120]}, "transformers fp32": {"greedy": [960]}, "transformers bf16": {"greedy": [600]}',
        ),
        "neighbours": (
            '"prompt": "<OD>"',
            '"fp32": {"1 loop": {"before": {"median": 384.4, "min": 200, "max": 900}, "after": {"median": 146.2, "min": 120, "max": 180}}}',
        ),
        "label": (
            '"model": "m", "precision": "bf16", "pictures": 8',
            '"five tasks": {"pictures_per_s": {"florence2 label": 4.0, "loop of engine.run": 1.0}, '
            '"times_faster": {"loop of engine.run": 4.04}, "pictures_with_the_same_answers": 0.98}',
        ),
        "load_test": (
            '"model": "demo", "seconds": 20.0, "target_s": 2.0, "size": [640, 480]',
            '"runs": [{"load": {"rate": 5.0}, "sent": 100, "answers_per_s": 4.5, "refused": 10, "latency_s": {"p50": 0.25, "p99": 1}, '
            '"first_event_s": {"p50": 0.125}, "goodput": {"share": 0.9}, "kept_up": true, "generator": {"send_lag_s": {"p99": 0.004}}}]',
        ),
        "streaming": (
            '"model": "demo", "scenes": 7',
            '"in_process": {"<OD>, greedy": {"first_text": {"median": 50}, "first_object": {"median": 61.2}, "whole": {"median": 122}, '
            '"first_object_share": 0.5}}, "http": {}, "steps": {"<OD>, one request, greedy": {"without_ms": 2, "with_ms": 2.04, '
            '"ratio": 1.02, "ratio_by_the_clock": 1.025}}',
        ),
        "precisions": (
            '"scenes": 9',
            '"measures": {"fp32": {"<OD>": {"ap": {"value": 0.9, "count": 30}}}, "bf16": {"<OD>": {"ap": {"value": 0.8, "count": 30}}}}, '
            '"answers_equal_to_fp32": {"bf16": {"<OD>": {"equal": 9, "count": 12}}}',
        ),
        "parity_full": (
            '"precision": "fp32", "new_tokens": 16',
            '"base, native": {"largest_difference": {"image_tokens": 1e-6, "encoder": 2e-6, "logits": 3e-5}, '
            '"ids_equal": {"a": true, "b": false}}',
        ),
        "demo_accuracy": ('"seed": 1', '"greedy": {"<OD>": {"ap50": {"value": 0.91234, "count": 80}}}'),
        "fine_tune": (
            '"seconds": {"florence2 train --data x": 61.4}',
            ", ".join(f'"{name}": {{"<OD>": {{"ap50": {{"value": 0.5, "count": 9}}}}}}' for name in FINE_TUNED),
        ),
    }
    for name, (settings, values) in measured.items():
        (tmp_path / f"{name}.json").write_text(f'{{{head}, "settings": {{{settings}}}, "figures": {{{values}}}}}', encoding="utf-8")
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert "| ours auto | 0.50 s | 0.40 s | 0.60 s | 4.00 |  | 4.00 |" in figures.compare()
    assert figures.compare().endswith("P, 2 threads, torch 1, transformers 2; 2026-01-02, `benchmarks/results/compare.json`.")
    assert "| ours auto | 2.0 s | 3.0 s | 500 MiB | 25% |" in figures.processes()
    assert "| bf16 | all | 200 ms | 300 ms | 1.50 |" in figures.roofline()
    assert "| decoder step, 3 rows | 0.61 ms |" in gpu()
    assert "| greedy | ours bf16 | 144 | 3,040 MiB |" in gpu()
    assert "| greedy | ours bf16 | 120 ms | 8.0 | 5.0 |" in gpu_one_request()
    assert "| fp32 | 1 loop | 384 (200 to 900) | 146 (120 to 180) |" in figures.neighbours()
    assert "| `<OD>`, greedy | the engine | 50 ms | 61 ms | 122 ms | 50% of the time |" in streaming()
    assert "| 5/s | 4.5/s | 10% | 0.25 s | 1.00 s | 0.12 s | 90% | yes |" in load_test()
    assert "sent at most 4 ms late" in load_test()
    assert "| five tasks | 4.0 pictures/s | 1.0 pictures/s: 4.0 x faster |" in label()
    assert "| `<OD>`, one request, greedy | 2.00 ms | 2.04 ms | +2.0% | +2.5% |" in streaming()
    assert "| `<OD>` | `ap` | 30 | 0.900 | 0.800 |" in figures.precisions()
    assert "| `<OD>` | 12 | 75% |" in figures.precisions()
    assert "| base, native | 1.0e-06 | 2.0e-06 | 3.0e-05 | 1 of 2 |" in figures.parity_full()
    assert "| `<OD>` | `ap50` | 80 | 0.912 |" in figures.demo_accuracy()
    assert "| `<OD>` | `ap50` | 0.90 | 0.912 |" in figures.demo_accuracy_short()
    assert "| `<OCR>` | `word_accuracy` | 0.90 | not measured |" in figures.demo_accuracy_short()
    assert "| arrows: `<OD>` `ap50` | 0.500 | 0.500 |" in figures.fine_tune()
    assert "Training took 61 s. P, 2 threads" in figures.fine_tune()


def test_the_curve_of_scores_shows_what_was_measured(tmp_path: Path):
    points = [[0.05, 0.1, 10], [0.95, 0.9, 30]]
    measured = {"figures": {"tasks": {"all": {"before curve": [[0.2, 0.7, 40]], "score curve": points}}}}
    (tmp_path / "calibration.json").write_text(json.dumps(measured), encoding="utf-8")
    drawn = curves.reliability(tmp_path / "calibration.json")
    circles = [dict(circle.attrib) for circle in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}circle")]
    places = [((float(one["cx"]) - curves.LEFT) / curves.SIDE, 1 - (float(one["cy"]) - curves.TOP) / curves.SIDE) for one in circles]
    assert [value for place in places for value in place] == pytest.approx([0.2, 0.7, 0.05, 0.1, 0.95, 0.9], abs=1e-3)
    assert [one["fill"] for one in circles] == [curves.CURVES[0][2], *[curves.CURVES[1][2]] * 2]
    assert float(circles[2]["r"]) > float(circles[1]["r"])
    assert "circle" not in curves.reliability(tmp_path / "nothing.json")


def test_a_curve_that_is_out_of_date_is_named(copy: Path):
    (copy / "docs" / "pictures" / "scores.svg").write_text("<svg/>", encoding="utf-8")
    assert copy / "docs" / "pictures" / "scores.svg" in generate.update(copy, check=True)
