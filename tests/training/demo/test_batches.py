"""Batches: right tokens in the right places, and the same number gives the same batch."""

from __future__ import annotations

import pytest
import torch

from florence2.scenes.scene import SceneOptions
from florence2.tasks import TASKS
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.collation import IGNORED
from florence2.training.demo.batches import MENU, SceneBatches, Stage
from florence2.training.demo.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def batches(folder):
    return SceneBatches(str(folder), 64, 8, 7, [Stage(2**62, SceneOptions(num_objects=(1, 2), num_words=(1, 1)))])


def test_the_menu_has_all_fifteen_tasks():
    assert {tag for row in MENU for tag in row} == set(TASKS)


def test_prompts_and_answers_are_the_examples_tokens(folder, batches):
    tokenizer = Tokenizer.load(folder)
    batch = batches[3]
    assert batch.pixels.shape == (8, 3, 64, 64)
    assert batch.pixels.dtype == torch.uint8
    questions = set()
    for group in batch.groups:
        for row, tag in enumerate(group.tags):
            prompt = group.prompt_ids[row, : group.prompt_lengths[row]].tolist()
            answer = [token for token in group.labels[row].tolist() if token != IGNORED]
            assert prompt[0] == answer[0] == tokenizer.bos_token_id
            assert prompt[-1] == answer[-1] == tokenizer.eos_token_id
            assert group.decoder_ids[row, : len(answer)].tolist() == [tokenizer.eos_token_id, *answer[:-1]]
            questions.add(tokenizer.decode(prompt[1:-1]))
            if tag == "<REGION_PROPOSAL>":
                assert tokenizer.decode(answer).count("<loc_") % 4 == 0
    assert "What is the text in the image?" in questions or "What is the text in the image, with regions?" in questions


def test_the_number_decides_everything(batches):
    first, again, other = batches[5], batches[5], batches[6]
    assert torch.equal(first.pixels, again.pixels)
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(first.groups, again.groups, strict=True))
    assert not torch.equal(first.pixels, other.pixels)


def test_the_curriculum_moves_on_with_the_pictures_seen(folder):
    stages = [Stage(16, SceneOptions(num_objects=(1, 1), num_words=(0, 0))), Stage(32, SceneOptions(num_objects=(3, 3), num_words=(0, 0)))]
    curriculum = SceneBatches(str(folder), 64, 8, 7, stages)

    def most_shapes(number: int) -> int:
        tokenizer = Tokenizer.load(folder)
        counts = [0]
        for group in curriculum[number].groups:
            for row, tag in enumerate(group.tags):
                if tag == "<OD>":
                    counts.append(tokenizer.decode([t for t in group.labels[row].tolist() if t != IGNORED]).count("<loc_") // 4)
        return max(counts)

    assert most_shapes(0) == 1
    assert most_shapes(2) > 1
    assert most_shapes(99) > 1
