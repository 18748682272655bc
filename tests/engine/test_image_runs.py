"""Many pictures asked in one call: what they are named by, their order, and what is wrong with one of them."""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from florence2.engine.engine import Engine
from florence2.errors import InvalidImage, InvalidOption, InvalidPrompt, InvalidRegion, UnknownTask
from florence2.inputs import urls
from florence2.model import Florence2
from florence2.tasks import parse_prompt

SHORT: dict[str, Any] = {"max_new_tokens": 6, "num_beams": 1}


def picture(shade: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, (shade,) * 3)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures, a broken one, and a document of two pages."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    for name in ("a.png", "c.png"):
        picture(90).save(tmp_path / "p" / name)
    (tmp_path / "p" / "b.png").write_text("words")
    picture(10).save("report.pdf", save_all=True, append_images=[picture(200)])
    return tmp_path


def test_pictures_come_in_order_each_with_all_results_of_one_encoding(engine: Engine, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = Florence2.encode_image
    monkeypatch.setattr(Florence2, "encode_image", lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels))
    found = list(engine.run_images(["report.pdf", "p"], ["<OD>", "<CAPTION>"], **SHORT))
    assert [one.name for one in found] == ["report.pdf#page=1", "report.pdf#page=2", "p/a.png", "p/b.png", "p/c.png"]
    assert [one.path for one in found] == [files / name.partition("#")[0] for name in (one.name for one in found)]
    assert [[result.task for result in one.results] for one in found if one.error is None] == [["<OD>", "<CAPTION>"]] * 4
    assert sum(encoded) <= 4  # the two pictures that are the same may share theirs
    broken = found[3]
    assert (type(broken.error), broken.size) == (InvalidImage, None)
    with pytest.raises(InvalidImage, match="not an image"):
        _ = broken.results
    alone = engine.run_many("p/a.png", ["<OD>", "<CAPTION>"], **SHORT)
    assert [result.token_ids for result in found[2].results] == [result.token_ids for result in alone]


def test_everything_that_an_image_may_be(engine: Engine, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    picture(50).save(buffer, "PNG")
    monkeypatch.setattr(urls, "fetch", lambda url: buffer.getvalue())
    array = np.full((30, 40, 3), 0.5)
    given = [
        Path("p/a.png"),
        picture(1),
        array,
        torch.from_numpy(array).permute(2, 0, 1),
        buffer.getvalue(),
        "https://example.org/a.png",
        "p/*.png",
    ]
    found = list(engine.run_images(iter(given), "<CAPTION>", **SHORT))
    memory = [f"image {number}" for number in range(4)]
    assert [one.name for one in found] == ["p/a.png", *memory, "https://example.org/a.png", "p/a.png", "p/b.png", "p/c.png"]
    assert {one.size for one in found if one.error is None} == {(40, 30)}
    for one in ("p/a.png", Path("p/a.png"), picture(1), array, buffer.getvalue()):
        assert len(list(engine.run_images(one, ["<OD>"], **SHORT))) == 1
    assert list(engine.run_images([], "<OD>")) == []


def test_pages_frames_and_steps(engine: Engine, files: Path) -> None:
    picture(0).save("a.gif", save_all=True, append_images=[picture(90), picture(180)])
    assert [one.name for one in engine.run_images("report.pdf", "<OD>", pages="2", **SHORT)] == ["report.pdf#page=2"]
    assert [one.name for one in engine.run_images("a.gif", "<OD>", frames="all", **SHORT)] == [f"a.gif#frame={index}" for index in range(3)]
    with pytest.raises(InvalidOption, match="every must be"):
        engine.run_images("a.gif", "<OD>", every="soon")


def test_what_is_wrong_for_every_picture_is_raised_at_once(engine: Engine) -> None:
    wrong: list[tuple[Any, dict[str, Any], type[Exception]]] = [
        ("<ODD>", {}, UnknownTask),
        (["<OD>", "<OPEN_VOCABULARY_DETECTION>"], {}, InvalidPrompt),
        ("<OD>", {"num_beams": 0}, InvalidOption),
        ("<OD>", {"beams": 1}, InvalidOption),
        ("<CAPTION>", {"tiles": "2x2"}, InvalidOption),
        ("<OD>", {"auto_orient": False}, InvalidOption),
    ]
    for prompts, options, error in wrong:
        with pytest.raises(error):
            engine.run_images("nothing.png", prompts, **options)


def test_a_region_that_lies_in_one_picture_and_not_in_another(engine: Engine) -> None:
    prompt = parse_prompt("<REGION_TO_OCR>", region=(100, 100, 150, 150))
    small, large = engine.run_images([picture(1), picture(2, (200, 200))], prompt, **SHORT)
    assert isinstance(small.error, InvalidRegion)
    assert len(large.results) == 1


def test_a_picture_with_too_many_tiles_does_not_end_the_others(engine: Engine) -> None:
    large, small = engine.run_images([picture(1, (2000, 2000)), picture(2)], "<OD>", tiles=64, **SHORT)
    assert isinstance(large.error, InvalidImage)
    assert large.error.field == "tiles"
    assert large.size == (2000, 2000)
    assert len(small.results) == 1


def test_results_refer_to_files_and_hold_no_pictures(engine: Engine, files: Path) -> None:
    (plain,) = engine.run_images("p/a.png", "<OD>", **SHORT)
    assert plain.results[0].annotate().width >= 40
    page, _ = engine.run_images("report.pdf", "<OD>", **SHORT)
    with pytest.raises(InvalidImage, match="keep_image"):
        page.results[0].annotate()
    kept, _ = engine.run_images("report.pdf", "<OD>", keep_image=True, **SHORT)
    assert kept.results[0].annotate().width >= page.results[0].image_size[0]
    (none,) = engine.run_images("p/a.png", "<OD>", keep_image=False, **SHORT)
    with pytest.raises(InvalidImage, match="keep_image"):
        none.results[0].annotate()


def test_few_pictures_are_in_memory(engine: Engine) -> None:
    """A generator of a hundred pictures: those that were answered are let go."""
    made: list[weakref.ref[Image.Image]] = []

    def pictures() -> Iterator[Image.Image]:
        for shade in range(40):
            one = picture(shade)
            made.append(weakref.ref(one))
            yield one

    most = 0
    for _ in engine.run_images(pictures(), "<CAPTION>", keep_image=False, **SHORT):
        most = max(most, sum(one() is not None for one in made))
    assert len(made) == 40
    assert most < 20


def test_an_iterator_that_is_dropped_cancels_what_is_under_way(engine: Engine) -> None:
    asked = engine.run_images((picture(shade) for shade in range(1000)), "<CAPTION>", max_new_tokens=60)
    assert next(asked).error is None
    del asked
    assert engine.run(picture(1), "<CAPTION>", **SHORT).task == "<CAPTION>"
