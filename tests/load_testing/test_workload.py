"""What is sent and when: decided by the seed alone, in the shares that were asked for, and no two pictures alike."""

from __future__ import annotations

import base64
import io
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from florence2.errors import InvalidRequest
from florence2.load_testing.options import Load, parse_questions
from florence2.load_testing.pictures import NUM_VARIANTS, Pictures, draw_pictures, read_pictures
from florence2.load_testing.workload import due_times, planned_requests

QUESTIONS = parse_questions("<CAPTION>=3,<OPEN_VOCABULARY_DETECTION>=1", (), ("a cat", "a dog"))


@pytest.fixture(scope="module")
def drawn() -> Pictures:
    return draw_pictures(3, (320, 240), seed=5)


def decoded(text: bytes) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def test_the_same_seed_plans_the_same(drawn: Pictures) -> None:
    first, second, other = (list(islice(planned_requests(QUESTIONS, drawn, repeat=0.5, seed=seed), 200)) for seed in (7, 7, 8))
    assert first == second != other
    for arrivals in ("poisson", "constant"):
        assert list(islice(due_times(Load("rate", 3), arrivals, 7), 50)) == list(islice(due_times(Load("rate", 3), arrivals, 7), 50))


def test_the_same_seed_draws_the_same(drawn: Pictures) -> None:
    assert draw_pictures(3, (320, 240), seed=5) == drawn != draw_pictures(3, (320, 240), seed=6)


def test_shares_are_those_of_the_weights(drawn: Pictures) -> None:
    planned = list(islice(planned_requests(QUESTIONS, drawn), 4000))
    prompts = Counter(one.prompt for one in planned)
    assert prompts["<CAPTION>"] == pytest.approx(3000, abs=120)
    assert prompts["<OPEN_VOCABULARY_DETECTION>a cat"] == pytest.approx(500, abs=90)
    assert Counter(one.picture for one in planned) == {0: 1334, 1: 1333, 2: 1333}
    assert Counter(one.picture for one in islice(planned_requests(QUESTIONS, drawn, order="random"), 3000))[0] == pytest.approx(
        1000, abs=120
    )


@pytest.mark.parametrize("order", ["turn", "random"])
def test_no_request_has_the_pixels_of_another(drawn: Pictures, order: str) -> None:
    sent = [(one.picture, one.variant) for one in islice(planned_requests(QUESTIONS, drawn, order=order), 2000)]
    assert len(set(sent)) == 2000
    assert all(0 < variant < NUM_VARIANTS for _, variant in sent)


def test_a_share_is_repeated_where_that_is_wanted(drawn: Pictures) -> None:
    sent = [(one.picture, one.variant) for one in islice(planned_requests(QUESTIONS, drawn, repeat=0.3), 2000)]
    repeated = [one for one in sent if one[1] == 0]
    assert len(repeated) == pytest.approx(600, abs=80)
    assert len(set(sent)) == 2000 - len(repeated) + 3


def test_variants_are_other_pixels_of_a_picture_that_looks_the_same(drawn: Pictures) -> None:
    variants = [decoded(drawn.pictures[0].base64(variant)) for variant in (0, *(2**bit for bit in range(16)), NUM_VARIANTS - 1)]
    for side in (224, 768):  # of the models
        assert len({picture.resize((side, side), Image.Resampling.BICUBIC).tobytes() for picture in variants}) == 18
    first, *others = (np.asarray(picture, dtype=float) for picture in variants)
    assert all(np.abs(first - other).mean() < 2 for other in others)


def test_drawn_pictures_are_as_large_as_photographs() -> None:
    pictures = draw_pictures(1, (640, 480), seed=0)
    assert decoded(pictures.pictures[0].base64()).size == (640, 480)
    assert 40_000 < pictures.mean_bytes < 150_000  # a photograph of that size at quality 85
    assert pictures.mean_bytes == len(base64.b64decode(pictures.pictures[0].base64()))


def test_poisson_arrivals_have_the_rate_and_its_chance() -> None:
    gaps = np.diff(list(islice(due_times(Load("rate", 50), "poisson", 0), 20_000)))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.05)
    assert np.histogram(gaps, [0, np.log(2) / 50, 1])[0][0] == pytest.approx(10_000, rel=0.05)  # the median of an exponential


def test_constant_arrivals() -> None:
    assert list(islice(due_times(Load("rate", 4), "constant", 0), 4)) == [0, 0.25, 0.5, 0.75]


def test_files_are_sent_as_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    Image.new("RGB", (20, 10), "blue").save(tmp_path / "b.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    pictures = read_pictures([str(tmp_path)], lambda _: None)
    assert [one.media_type for one in pictures.pictures] == ["image/png", "image/jpeg"]
    assert base64.b64decode(pictures.pictures[0].base64(3)) == (tmp_path / "a.png").read_bytes()
    assert all(one.variant == 0 for one in islice(planned_requests(QUESTIONS, pictures, repeat=1.0), 10))


@pytest.mark.parametrize("name", ["missing.jpg", "notes.txt", "https://example.com/a.jpg"])
def test_what_is_no_file_with_a_picture_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InvalidRequest):
        read_pictures([name], lambda _: None)
