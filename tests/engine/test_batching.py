"""An answer has the tokens that it has alone, whoever else runs: real models, every precision, random requests, at once and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import florence2
from fixtures.checkpoints import write_checkpoint
from florence2.engine.engine import Engine
from florence2.engine.preprocess import normalise
from florence2.model.cpu import kernels
from florence2.tasks.prompt import build_prompt
from florence2.weights import load_model, read_checkpoint

TIE = 1e-4  # of two scores; what float32 can't tell apart after so many sums
PROMPTS = [
    "<CAPTION>",
    "<OD>",
    "<OCR_WITH_REGION>",
    "<CAPTION_TO_PHRASE_GROUNDING>the cat on a mat",
    "<REGION_TO_OCR><loc_5><loc_6><loc_700><loc_800>",
    "hi",
]


@dataclass(frozen=True)
class Case:
    """One request."""

    image: int
    prompt: str
    num_beams: int
    max_new_tokens: int
    no_repeat_ngram_size: int

    @property
    def pixels(self) -> np.ndarray:
        return np.random.default_rng(self.image).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    @property
    def options(self) -> dict[str, Any]:
        return {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens, "no_repeat_ngram_size": self.no_repeat_ngram_size}


ONE = st.builds(Case, st.integers(0, 3), st.sampled_from(PROMPTS), st.integers(1, 5), st.integers(1, 24), st.integers(0, 3))
CASES = st.lists(ONE, min_size=2, max_size=14)


@pytest.fixture(scope="module", params=["tiny", "wide"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), size=request.param, seed=7)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with florence2.load(folder, device="cpu", precision="fp32", max_rows=20) as engine:
        yield engine


class Judge:
    """What the plain model thinks of an answer, all its tokens at once."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.model = engine, load_model(read_checkpoint(folder))

    @torch.inference_mode()
    def log_probs(self, case: Case, token_ids: list[int]) -> list[float]:
        features = self.model.encode_image(normalise(case.pixels, self.engine.checkpoint.image).unsqueeze(0))
        sentence = build_prompt(case.prompt, image_size=(64, 64)).sentence
        prompt_ids = self.engine.tokenizer.encode(sentence)
        decoder_ids = torch.tensor([[2, *token_ids[:-1]]])
        logits = self.model(features, torch.tensor([prompt_ids]), [len(prompt_ids)], decoder_ids)
        every = logits[0].float().log_softmax(-1)
        return every[torch.arange(len(token_ids)), torch.tensor(token_ids)].tolist()

    def is_tie(self, case: Case, one: list[int], other: list[int]) -> bool:
        """Greedily the tokens at the first difference, with beams the whole answers, have scores within ``TIE``."""
        scores = [self.log_probs(case, tokens) for tokens in (one, other)]
        if case.num_beams == 1:
            place = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
            return abs(scores[0][place] - scores[1][place]) < TIE
        # The first token is forced and counts nothing; so does the last where the limit forces it.
        means = [sum(log_probs[1:-1]) / len(log_probs) for log_probs in scores]
        return abs(means[0] - means[1]) < TIE


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases=CASES)
def test_answers_are_the_same_alone_and_among_others(engine: Engine, folder: Path, cases: list[Case]) -> None:
    alone = [engine.run(case.pixels, case.prompt, **case.options).token_ids for case in cases]
    futures = [engine.submit(case.pixels, case.prompt, **case.options) for case in cases]
    wait(futures, 60)
    judge = Judge(engine, folder)
    for case, future, expected in zip(cases, futures, alone, strict=True):
        found = future.result(0).token_ids
        assert found == expected or judge.is_tie(case, found, expected), case


@pytest.fixture(scope="module", params=["bf16", "int8"])
def short_engine(folder: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Of fewer bits than float32."""
    with florence2.load(folder, device="cpu", precision=request.param, max_rows=20) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain_engine(folder: Path) -> Iterator[Engine]:
    """In 8 bits without compiled kernels, as on systems that have none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_kernels", None)
        patch.setattr(kernels, "_origin", kernels.Origin("off", "the test"))
        with florence2.load(folder, device="cpu", precision="int8", max_rows=20) as engine:
            assert engine.run(Case(0, "hi", 1, 1, 0).pixels, "hi", max_new_tokens=1)
            yield engine


def check_company(engine: Engine, cases: list[Case]) -> None:
    """Fewer bits round off far more than the order of a sum changes, so that nothing but equal sums gives equal answers: none is a tie."""
    alone = [engine.run(case.pixels, case.prompt, **case.options).token_ids for case in cases]
    futures = [engine.submit(case.pixels, case.prompt, **case.options) for case in cases]
    wait(futures, 60)
    assert [future.result(0).token_ids for future in futures] == alone
    prompts = [case.prompt for case in cases]
    by_one = [engine.run(cases[0].pixels, prompt, max_new_tokens=9).token_ids for prompt in prompts]
    assert [result.token_ids for result in engine.run_many(cases[0].pixels, prompts, max_new_tokens=9)] == by_one


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases=CASES)
def test_answers_of_fewer_bits_are_the_same_alone_and_among_others(short_engine: Engine, cases: list[Case]) -> None:
    check_company(short_engine, cases)


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases=CASES)
def test_answers_without_compiled_kernels_are_the_same_alone_and_among_others(plain_engine: Engine, cases: list[Case]) -> None:
    check_company(plain_engine, cases)


def test_the_judge_knows_a_tie_from_a_difference(engine: Engine, folder: Path) -> None:
    case = Case(0, "<CAPTION>", 1, 12, 0)
    judge = Judge(engine, folder)
    tokens = engine.run(case.pixels, case.prompt, **case.options).token_ids
    other = [*tokens[:5], (tokens[5] + 1) % 300, *tokens[6:]]
    assert not judge.is_tie(case, tokens, other)
