"""Greedy and beam search against ``generate`` of the reference.

First on the same logits to the last bit: the reference decodes with a model whose logits are a fixed function of the
sequence so far, so that every difference is one of search and none of arithmetic. Then model and all: tiny random
Florence-2 models, many requests of different options at once in the scheduler.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from florence2.engine.next_tokens import best_tokens
from florence2.engine.request import Request, SharedImage, start_search
from florence2.engine.scheduler import Scheduler
from florence2.engine.search import Generated, SpecialTokens
from florence2.request_options import GenerationOptions
from tests.reference import own_model, reference_inputs, reference_model

START = EOS = 2
BOS = 0


class TableConfig(PretrainedConfig):
    """As little as ``generate`` asks for."""

    model_type = "table"

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.bos_token_id, self.eos_token_id, self.pad_token_id, self.num_hidden_layers = BOS, EOS, 1, 1


class TableModel(PreTrainedModel, GenerationMixin):
    """Logits looked up by the last tokens and the position: cheap, exact, and different for every history that matters."""

    config_class = TableConfig

    def __init__(self, seed: int, vocabulary: int, eos_bias: float, sharpness: float) -> None:
        super().__init__(TableConfig())
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.vocabulary, self.eos_bias = vocabulary, eos_bias
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(97, vocabulary, generator=generator) * sharpness

    def logits(self, sequence: list[int]) -> torch.Tensor:
        """The logits after ``sequence``, ``[vocabulary]``."""
        key = len(sequence)
        for token in sequence[-3:]:
            key = key * 31 + token
        logits = self.table[key % 97].roll(key % self.vocabulary)
        logits[EOS] += self.eos_bias
        return logits

    def forward(self, input_ids: torch.Tensor, **_) -> CausalLMOutput:
        """Logits of the last position only; ``generate`` reads no other."""
        return CausalLMOutput(logits=torch.stack([self.logits(row) for row in input_ids.tolist()]).unsqueeze(1))

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_) -> dict:  # type: ignore[override]
        return {"input_ids": input_ids}


def generation_config(options: GenerationOptions, special: SpecialTokens, **more: Any) -> GenerationConfig:
    """The reference's words for our options."""
    config = GenerationConfig(
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        forced_bos_token_id=special.forced_bos,
        forced_eos_token_id=special.forced_eos,
        eos_token_id=EOS,
        pad_token_id=1,
        do_sample=False,
        **more,
    )
    if options.num_beams > 1:  # without beams it warns of them
        config.length_penalty, config.early_stopping = options.length_penalty, options.early_stopping
    return config


def reference_ids(model: TableModel, options: GenerationOptions, special: SpecialTokens) -> list[int]:
    config = generation_config(options, special, use_cache=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.generate(torch.tensor([[START]]), generation_config=config)[0].tolist()  # type: ignore[misc]


def our_answer(model: TableModel, options: GenerationOptions, special: SpecialTokens) -> Generated:
    search = start_search(options, special)
    sequences = [[] for _ in range(search.num_rows)]
    while search.answer is None:
        sequences = [[*sequences[parent], token] for parent, token in zip(search.parents, search.tokens, strict=True)]
        logits = torch.stack([model.logits(sequence) for sequence in sequences])
        search.advance(best_tokens(logits, search.num_candidates, search.banned(), search.forced))
    return search.answer


def random_case(rng: random.Random, num_beams: int) -> tuple[TableModel, GenerationOptions, SpecialTokens]:
    model = TableModel(rng.randrange(10**6), rng.choice([40, 120, 700]), rng.choice([-2.0, 1.0, 3.0]), rng.choice([0.5, 1.5]))
    options = GenerationOptions(
        num_beams=num_beams,
        max_new_tokens=rng.choice([1, 2, 3, 7, 12, 24]),
        no_repeat_ngram_size=rng.choice([0, 1, 2, 3]),
        length_penalty=rng.choice([1.0, 1.0, 0.0, 2.0, -1.0]),
        early_stopping=rng.choice([True, True, False, "never"]),
    )
    special = SpecialTokens(START, EOS, rng.choice([BOS, BOS, None]), rng.choice([EOS, EOS, None]))
    return model, options, special


@pytest.mark.slow
@pytest.mark.parametrize(("num_beams", "cases"), [(1, 100), (2, 40), (3, 120), (5, 40)])
def test_ids_equal_the_reference(num_beams: int, cases: int) -> None:
    rng = random.Random(num_beams)
    own_ends = 0
    for _ in range(cases):
        model, options, special = random_case(rng, num_beams)
        answer = our_answer(model, options, special)
        assert [START, *answer.token_ids] == reference_ids(model, options, special), (options, special)
        own_ends += answer.finish_reason == "stop"
    # Both ways to end have been taken, or the comparison says little.
    assert cases // 10 < own_ends < cases


def test_log_probabilities_are_the_models_own() -> None:
    rng = random.Random(7)
    for num_beams in (1, 3):
        for _ in range(10):
            model, options, special = random_case(rng, num_beams)
            answer = our_answer(model, options, special)
            sequence = [START]
            for token, log_probability in zip(answer.token_ids, answer.log_probabilities, strict=True):
                assert log_probability == pytest.approx(torch.log_softmax(model.logits(sequence), -1)[token].item())
                sequence.append(token)


SPECIAL = SpecialTokens(START, EOS, BOS, EOS)
OPTIONS = [
    GenerationOptions(num_beams, max_new_tokens, ngram, early_stopping=early_stopping)
    for num_beams in (1, 3)
    for max_new_tokens in (9, 24)
    for ngram in (0, 2, 3)
    for early_stopping in (True, False)[:num_beams]
]
PROMPTS_PER_BATCH = 6


@pytest.fixture(scope="module", params=[0, 1])
def models(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The reference and our model with the same weights: answers differ by image and prompt, and often end of themselves."""
    reference = reference_model(seed=request.param)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter += 1.0
        reference.get_input_embeddings().weight[EOS] *= 2.0
    return reference, own_model(reference)


def random_prompts(seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[BOS, *(rng.randrange(4, 190) for _ in range(rng.randrange(1, 14))), EOS] for _ in range(PROMPTS_PER_BATCH)]


def reference_answers(reference: Any, pixels: torch.Tensor, prompts: list[list[int]], options: GenerationOptions) -> list[list[int]]:
    """What the reference generates for a padded batch, without start token and padding."""
    image_tokens = reference.model.get_image_features(pixels).pooler_output.shape[1]
    ids, mask = reference_inputs(image_tokens, prompts, reference.config.image_token_id)
    config = generation_config(options, SPECIAL, decoder_start_token_id=START)
    generated = reference.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels, generation_config=config).tolist()
    return [row[1 : len(row) - row[::-1].index(EOS)] for row in generated]


@pytest.mark.slow
@torch.no_grad()
def test_ids_equal_the_reference_with_all_requests_at_once(models: tuple[Any, Any]) -> None:
    reference, own = models
    expected: list[list[int]] = []
    requests: list[Request[Generated]] = []
    for case, options in enumerate(OPTIONS):
        prompts = random_prompts(case)
        pixels = torch.randn(PROMPTS_PER_BATCH, 3, 72, 72, generator=torch.Generator().manual_seed(case))
        expected += reference_answers(reference, pixels, prompts, options)
        for image, prompt in zip(pixels, prompts, strict=True):
            requests.append(Request(SharedImage(image), prompt, start_search(options, SPECIAL), lambda generated: generated))
    scheduler = Scheduler(own)
    scheduler.submit(requests)
    answers = [request.future.result(60) for request in requests]
    scheduler.close()

    assert len(answers) >= 100
    assert [answer.token_ids for answer in answers] == expected
    assert len({tuple(ids) for ids in expected}) > len(expected) // 3  # some options make no difference
    own_ends = sum(answer.finish_reason == "stop" for answer in answers)
    assert len(answers) // 10 < own_ends < len(answers) * 9 // 10
