"""What a search keeps of locations is what the model held of them, token by token, and it is the winner's own.

Against a softmax over all logits of the plain model, for greedy search and beams, alone and among others, recorded and not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import florence2
from fixtures.checkpoints import write_checkpoint
from florence2.engine import batch as batch_module
from florence2.engine.batch import Batch, Model
from florence2.engine.cuda_graphs import GraphedModel
from florence2.engine.engine import Engine
from florence2.engine.next_tokens import best_tokens
from florence2.engine.request import Request, SharedImage, start_search
from florence2.engine.search import Generated, GreedySearch, SpecialTokens
from florence2.model import Florence2
from florence2.request_options import GenerationOptions
from florence2.tasks.tokenizer import Tokenizer
from florence2.weights import load_model, read_checkpoint
from tests.engine.test_cuda_graphs import Again

PROMPT = [0, 5, 6, 7, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), size="tiny", seed=11)


@pytest.fixture(scope="module")
def model(folder: Path) -> Florence2:
    return load_model(read_checkpoint(folder))


@pytest.fixture(scope="module")
def locations(folder: Path) -> Sequence[int]:
    return Tokenizer.load(folder).location_ids


def image(number: int) -> SharedImage:
    return SharedImage(torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(number)))


def request(number: int, locations: Sequence[int], **options: Any) -> Request[Generated]:
    search = start_search(GenerationOptions(**options), SpecialTokens(), locations)
    return Request(image(number), PROMPT, search, lambda generated: generated)


@torch.inference_mode()
def answers(model: Model, requests: Sequence[Request[Generated]]) -> list[Generated]:
    batch = Batch(model, max_rows=24)
    batch.enter(requests)
    while batch.requests:
        batch.step()
    return [request.future.result(0) for request in requests]


@torch.inference_mode()
def all_probabilities(model: Florence2, number: int, token_ids: Sequence[int]) -> np.ndarray:
    """What the plain model holds of every token at each place of an answer, ``[tokens, vocabulary]``."""
    pixels = image(number).pixels
    assert pixels is not None
    decoder_ids = torch.tensor([[2, *token_ids[:-1]]])
    logits = model(model.encode_image(pixels.unsqueeze(0)), torch.tensor([PROMPT]), [len(PROMPT)], decoder_ids)
    return logits[0].double().softmax(-1).numpy()


OPTIONS = [
    {"num_beams": 1, "max_new_tokens": 24},
    {"num_beams": 1, "max_new_tokens": 30, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "max_new_tokens": 24},
    {"num_beams": 5, "max_new_tokens": 16, "no_repeat_ngram_size": 1, "length_penalty": 0.3},
    {"num_beams": 4, "max_new_tokens": 2},
    {"num_beams": 2, "max_new_tokens": 1},
]


def check(model: Florence2, number: int, generated: Generated, locations: Sequence[int]) -> int:
    """Everything that is kept against the softmax; how many locations there were."""
    expected = all_probabilities(model, number, generated.token_ids)
    assert len(generated.locations) == len(generated.token_ids)
    for token, kept, every in zip(generated.token_ids, generated.locations, expected, strict=True):
        assert (kept is not None) == (token in locations)
        if kept is not None:
            np.testing.assert_allclose(kept, every[list(locations)], atol=1e-6, rtol=1e-3)
            assert kept.base is None  # a view would keep the rows of everybody else
    return sum(kept is not None for kept in generated.locations)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_winners_locations_are_what_the_model_held_of_them(model: Florence2, locations: Sequence[int], options: dict[str, Any]) -> None:
    found = 0
    for number in range(4):
        (generated,) = answers(model, [request(number, locations, **options)])
        found += check(model, number, generated, locations)
    assert found > 8 or options["max_new_tokens"] <= 2


def test_the_same_beside_others_that_ask_for_scores_or_do_not(model: Florence2, locations: Sequence[int]) -> None:
    requests = [request(number, locations if number % 3 else (), **options) for number, options in enumerate(OPTIONS)]
    for number, (asked, generated) in enumerate(zip(requests, answers(model, requests), strict=True)):
        if asked.search.locations:
            check(model, number, generated, locations)
            (alone,) = answers(model, [request(number, locations, **OPTIONS[number])])
            assert alone.token_ids == generated.token_ids
        else:
            assert generated.locations == [None] * len(generated.token_ids)


@pytest.mark.parametrize("options", OPTIONS[:4])
def test_the_same_where_steps_are_recorded(model: Florence2, locations: Sequence[int], options: dict[str, Any]) -> None:
    (generated,) = answers(GraphedModel(model, Again()), [request(1, locations, **options)])
    check(model, 1, generated, locations)


def test_without_scores_nothing_is_computed_or_kept(model: Florence2, locations: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[int]] = []

    def spy(logits: torch.Tensor, count: int, banned: Any, forced: Any, wanted: Sequence[int]) -> Any:
        asked.append(wanted)
        return best_tokens(logits, count, banned, forced, wanted)

    monkeypatch.setattr(batch_module, "best_tokens", spy)
    (generated,) = answers(model, [request(1, (), num_beams=3, max_new_tokens=8)])
    assert set(map(tuple, asked)) == {()}
    assert generated.locations == [None] * len(generated.token_ids)


@pytest.mark.parametrize("tokens", [range(40, 90), [3, 99, 7, 50]])
def test_best_tokens_tells_what_was_held_of_locations_before_any_ban(tokens: Sequence[int]) -> None:
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(2))
    expected = logits.double().softmax(-1).numpy()[:, list(tokens)]
    found = best_tokens(logits.clone(), 3, [(50,), (), (99, 7), (), ()], locations=tokens)
    assert found.locations is not None
    np.testing.assert_allclose(found.locations, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.rows(2, 2).locations, found.locations[2:4])
    assert best_tokens(logits.clone(), 3).locations is None


def test_a_search_that_was_not_asked_keeps_nothing_of_a_step_that_others_asked_for() -> None:
    logits = torch.zeros(1, 10)
    logits[0, 6] = 5.0
    unforced = SpecialTokens(forced_bos=None, forced_eos=None)
    kept, plain = (GreedySearch(unforced, max_new_tokens=1, locations=wanted) for wanted in ((5, 6), ()))
    for search in (kept, plain):
        search.advance(best_tokens(logits.clone(), 1, locations=(5, 6)).rows(0, 1))
    assert kept.answer is not None
    assert plain.answer is not None
    assert [row is None for row in kept.answer.locations] == [False]
    assert plain.answer.locations == [None]


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with florence2.load(folder, device="cpu", precision="fp32", max_rows=20) as engine:
        yield engine


@pytest.mark.slow
def test_scores_are_the_same_alone_and_among_others(engine: Engine) -> None:
    pixels = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in range(3)]
    prompts = ["<OD>", "<REGION_PROPOSAL>", "<OCR_WITH_REGION>", "<REFERRING_EXPRESSION_SEGMENTATION>a cat", "<CAPTION>"]
    cases = [
        (picture, prompt, {"num_beams": beams, "max_new_tokens": length, "scores": beams != 2})
        for picture in pixels
        for prompt in prompts
        for beams, length in ((1, 40), (2, 12), (3, 25))
    ]
    alone = [engine.run(picture, prompt, **options) for picture, prompt, options in cases]
    futures = [engine.submit(picture, prompt, **options) for picture, prompt, options in cases]
    num_scores = 0
    for one, future in zip(alone, futures, strict=True):
        found = future.result(60)
        assert found.token_ids == one.token_ids
        assert (found.scores is None) == (one.scores is None)
        if one.scores is not None:
            assert found.scores == pytest.approx(one.scores, abs=1e-5)
            assert len(one.scores) == len(one.labels)
            assert all(0 <= score <= 1 for score in one.scores)
            num_scores += len(one.scores)
    assert num_scores > 10
