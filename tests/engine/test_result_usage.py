"""What an answer took: the tokens of its image and prompt, those it has, and whether the image was there already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import florence2
from florence2.engine.engine import Engine
from florence2.tasks import parse_prompt


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3, "scores": True}])
def test_tokens_are_those_that_the_model_read_and_wrote(engine: Engine, options: dict) -> None:
    picture = Image.new("RGB", (70, 50), "blue")
    prompts = ["<OD>", "what is > this", parse_prompt("<REGION_TO_OCR>", region=(0, 0, 35, 50))]
    for prompt, result in zip(prompts, engine.run_many(picture, prompts, max_new_tokens=12, **options), strict=True):
        parsed = (prompt if not isinstance(prompt, str) else parse_prompt(prompt)).bind(picture.size)
        usage = result.usage
        assert usage is not None
        assert usage.num_prompt_tokens - usage.num_image_tokens == len(engine.tokenizer.encode(parsed.sentence))
        assert usage.num_prompt_tokens == usage.num_image_tokens + len(engine.prepare(prompt).token_ids)
        assert usage.num_answer_tokens == len(result.token_ids)
        assert result.log_probabilities is not None
        assert len(result.log_probabilities) == len(result.token_ids)
        assert sum(result.log_probabilities) == pytest.approx(result.log_probability)


def test_an_image_is_cached_from_its_first_answer_on(engine: Engine, folder: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(77).integers(0, 256, (50, 70, 3), dtype=np.uint8))

    def cached(engine: Engine) -> list[bool]:
        results = engine.run_many(picture, ["<OD>", "<CAPTION>"], max_new_tokens=5)
        return [result.usage is not None and result.usage.is_image_cached for result in results]

    assert [cached(engine), cached(engine)] == [[False, False], [True, True]]
    with florence2.load(folder, device="cpu", image_cache_bytes=0) as without:
        assert [cached(without), cached(without)] == [[False, False]] * 2
