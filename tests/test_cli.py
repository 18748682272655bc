"""The command line in process: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from florence2 import __version__
from florence2.cli import main
from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a" / "scene.png", tmp_path / "b" / "scene.jpg"]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def infer(cli: Cli, folder: Path):
    def run(*arguments: object) -> tuple[int, str, str]:
        return cli("infer", "--model", folder, "--device", "cpu", "--max-new-tokens", 10, *arguments)

    return run


def test_json_is_one_line_per_image(infer, images: list[str]) -> None:
    code, out, err = infer(*images, "--prompt", "<OD>", "--json", "--scores")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [line["image"] for line in lines] == images
    for line in lines:
        assert set(line) == {"image", "response"}
        answer = line["response"]["<OD>"]
        assert set(answer) == {"bboxes", "labels", "scores"}


def test_people_get_lines(infer, images: list[str]) -> None:
    code, out, _ = infer(images[0], "--prompt", "<CAPTION>", "--beams", 1, "--no-repeat-ngram-size", 0)
    assert code == 0
    first, second, *_ = out.split("\n")
    assert first.startswith(f"{images[0]} (60 x 40) <CAPTION>")
    assert second.startswith("  ")


def test_drawings_do_not_overwrite_each_other(infer, images: list[str], tmp_path: Path) -> None:
    code, _, _ = infer(*images, "--prompt", "<CAPTION>", "--draw", tmp_path / "deep" / "out")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == ["scene-2.png", "scene.png"]
    with Image.open(tmp_path / "deep" / "out" / "scene.png") as drawn:
        assert drawn.width == 60
        assert drawn.height > 40


def test_one_bad_image_does_not_stop_the_others(infer, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    code, out, err = infer(images[0], tmp_path / "bad.png", "missing.png", images[1], "--prompt", "<OCR>", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [set(line) for line in lines] == [{"image", "response"}, {"image", "error"}, {"image", "error"}, {"image", "response"}]
    assert lines[1]["error"]["code"] == "invalid_image"
    assert len(err.splitlines()) == 2
    assert "bad.png" in err
    assert "missing.png" in err


def test_many_images_keep_their_order(infer, images: list[str]) -> None:
    many = images * 10
    code, out, _ = infer(*many, "--prompt", "<OCR>", "--json", "--beams", 1)
    assert code == 0
    assert [json.loads(line)["image"] for line in out.splitlines()] == many


def test_a_region_that_one_image_is_too_small_for(infer, images: list[str], tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    code, out, err = infer(tmp_path / "small.png", images[0], "--prompt", "<REGION_TO_OCR>", "--region", "5,5,50,30.5", "--json")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "small.png" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "<ODD>"], "<OD>"),
        (["--prompt", "<CAPTION_TO_PHRASE_GROUNDING>"], "needs a text"),
        (["--prompt", "<REGION_TO_OCR>", "--region", "1,2,3"], "x1,y1,x2,y2"),
        (["--prompt", "<OD>", "--beams", "99"], "num_beams"),
        (["--prompt", "<OD>", "--precision", "int3"], "fp32"),
        (["--prompt", "<OD>", "--device", "gpu"], "cuda"),
        (["--prompt", "<OD>", "--model", "florence-9"], "florence-2-base"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(infer, images: list[str], arguments: list[str], said: str) -> None:
    code, out, err = infer(images[0], *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("florence2: ")
    assert said in err


def test_a_single_missing_image_is_a_mistake(infer) -> None:
    code, _, err = infer("missing.png", "--prompt", "<OD>")
    assert code == 2
    assert "there is no file" in err


def test_usage_errors(cli: Cli, images: list[str]) -> None:
    assert cli("infer", images[0])[0] == 2
    assert cli("infer", "--prompt", "<OD>")[0] == 2
    assert cli("infre")[0] == 2


def test_a_damaged_checkpoint_is_not_the_users_mistake(infer, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    code, _, err = infer(images[0], "--prompt", "<OD>", "--model", tmp_path)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "config.json" in err


def test_an_output_folder_that_cannot_be(infer, images: list[str]) -> None:
    code, _, err = infer(images[0], "--prompt", "<OD>", "--draw", Path(images[0]) / "out")
    assert code == 2
    assert "can't be made" in err


def test_models_lists_the_aliases(cli: Cli) -> None:
    code, out, _ = cli("models")
    assert code == 0
    for alias in ("florence-2-demo", "florence-2-base", "florence-2-large", "florence-2-base-ft", "florence-2-large-ft"):
        assert alias in out


def test_models_says_what_is_here(cli: Cli, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda name, _: str(folder / "config.json") if name.endswith("-base") else None
    )
    lines = {line.split()[0]: line for line in cli("models")[1].splitlines() if line.startswith("florence")}
    assert " yes " in lines["florence-2-base"]
    assert " no " in lines["florence-2-large"]


def test_pull_prints_the_folder(cli: Cli, folder: Path) -> None:
    assert cli("pull", folder) == (0, f"{folder}\n", "")
    assert cli("pull", "nowhere-at-all")[0] == 2


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"florence2 {__version__}\n", "")


def test_help_needs_nothing_heavy() -> None:
    script = (
        "import sys; from florence2.cli import main\n"
        "try: main(['infer', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'tokenizers', 'huggingface_hub', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--no-repeat-ngram-size" in done.stdout


def test_a_missing_extra_is_named(images: list[str]) -> None:
    script = f"import sys; sys.modules['torch'] = None; from florence2.cli import main; main(['infer', {images[0]!r}, '--prompt', '<OD>'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'florence2[engine]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
