"""``florence2 infer --tiles``: passed on to the engine, and what does not go with it is told before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from florence2.cli.infer import command
from florence2.tiling.tiles import Tiles


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_tiles_reach_the_engine(infer, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    loaded = command._loaded

    def watched(*args: object, **options: object) -> object:
        engine = loaded(*args, **options)  # type: ignore[arg-type]
        submit = engine.submit_many
        monkeypatch.setattr(engine, "submit_many", lambda *given, **more: asked.append(more.get("tiles")) or submit(*given, **more))
        return engine

    monkeypatch.setattr(command, "_loaded", watched)
    words = ("-t", "od,ocr", "-j", "--max-new-tokens", 4)
    code, out, err = infer(picture, *words, "--tiles", "2x1", "--tile-overlap", 0.1, "--tiles-only")
    assert (code, len(out.splitlines())) == (0, 2), err
    assert infer(picture, *words)[0] == 0
    assert asked == [Tiles("2x1", 0.1, includes_whole=False), None]


def test_a_picture_with_too_many_tiles_leaves_the_others(infer, picture: Path, tmp_path: Path) -> None:
    Image.new("RGB", (2000, 2000)).save(tmp_path / "large.png")
    code, out, _ = infer(tmp_path / "large.png", picture, "-t", "od", "-j", "--max-new-tokens", 4, "--tiles", 250, "--tiles-only")
    first, second = (json.loads(line) for line in out.splitlines())
    assert code == 1
    assert first["error"]["code"] == "invalid_image"
    assert "at most 64 are asked about" in first["error"]["message"]
    assert "error" not in second


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "od", "--tiles", "4y4"), "--tiles must be a grid"),
        (("-t", "od", "--tile-overlap", 0.3), "--tile-overlap goes with"),
        (("-t", "od", "--tiles-only"), "--tiles-only goes with"),
        (("-t", "od", "--tiles", "2x2", "--tile-overlap", 0.7), "--tile-overlap must be a share"),
        (("-t", "od", "--tiles", "2x2", "--stream"), "--stream and --tiles do not go together"),
        (("-t", "od,caption", "--tiles", "2x2"), "do not go with <CAPTION>"),
    ],
)
def test_what_does_not_go_with_tiles_is_told_at_once(infer, picture: Path, monkeypatch, words: tuple[object, ...], said: str) -> None:
    monkeypatch.setattr(command, "_loaded", lambda *_, **__: pytest.fail("a model was loaded"))
    code, out, err = infer(picture, *words)
    assert (code, out) == (2, "")
    assert said in err
