"""``florence2.training`` is loaded lazily, refuses what can't be, and ends a run that its caller stops with all that was learnt saved."""

from __future__ import annotations

import subprocess
import sys

import pytest

import florence2
from fixtures.checkpoints import write_checkpoint
from florence2.errors import DatasetError, InvalidOption
from florence2.training import FineTuneData, FineTuneOptions, fine_tune
from tests.training.sets import write_jsonl, write_pictures


@pytest.fixture
def data(tmp_path):
    names = write_pictures(tmp_path / "set", 6)
    return write_jsonl(tmp_path / "set" / "set.jsonl", [{"image": name, "prompt": "<CAPTION>", "answer": "a cat"} for name in names])


def test_importing_it_and_naming_options_brings_no_torch():
    code = (
        "import sys, florence2; florence2.training.__name__; import florence2.training, florence2.training.options; "
        "print('torch' in sys.modules, 'florence2.scenes' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False False\n"


def test_training_on_files_imports_no_scenes(data, tmp_path):
    code = (
        "import sys; from florence2.training import FineTuneOptions, fine_tune; "
        "fine_tune(sys.argv[1], model=sys.argv[2], output=sys.argv[3], options=FineTuneOptions(epochs=1, rank=2), precision='fp32'); "
        "print([name for name in sys.modules if name.startswith(('florence2.scenes', 'florence2.training.demo'))])"
    )
    words = [sys.executable, "-c", code, str(data), str(write_checkpoint(tmp_path / "base")), str(tmp_path / "run")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_run_that_its_caller_ends_goes_on_from_there(data, tmp_path):
    class Stop(Exception):
        pass

    base, steps = write_checkpoint(tmp_path / "base"), []

    def stop(step):
        steps.append(step.number)
        if step.number == 2:
            raise Stop

    settings = {"model": base, "output": tmp_path / "run", "options": FineTuneOptions(batch_size=1, epochs=1, rank=2), "precision": "fp32"}
    with pytest.raises(Stop):
        fine_tune(data, on_step=stop, **settings)
    messages: list[str] = []
    outcome = fine_tune(data, on_step=lambda step: steps.append(step.number), on_message=messages.append, resume=True, **settings)
    assert steps == list(range(1, outcome.steps + 1))
    assert "5 records, 1 held out" in messages[-1]
    with florence2.load(outcome.folders[0], precision="fp32") as engine:
        assert engine.run(tmp_path / "set" / "0.png", "<CAPTION>", max_new_tokens=4).task == "<CAPTION>"


def test_mistakes_are_refused_before_a_model_is_looked_for(data, tmp_path):
    settings = {"model": "no-such-model", "output": tmp_path / "run"}
    with pytest.raises(DatasetError, match="there is no data set"):
        fine_tune("nowhere.jsonl", **settings)
    with pytest.raises(InvalidOption, match="validation_share"):
        fine_tune(FineTuneData((str(data),), validation_share=1.0), **settings)
    with pytest.raises(InvalidOption, match="precision must be auto, fp32 or bf16"):
        fine_tune(data, precision="int8", **settings)
    with pytest.raises(InvalidOption, match="method must be one of lora, full; got 'half'"):
        FineTuneOptions(method="half")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
