"""Everything that is kept by task, grammar or kind has all tasks: a new row of the table can't be missed anywhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from florence2.datasets.round_trip import check_answer
from florence2.evaluation.metrics import FREE, METRICS_OF
from florence2.results import Kind
from florence2.scenes.scene import draw_scene
from florence2.scenes.targets import make_targets
from florence2.scenes.world import WORLD
from florence2.tasks.answer import read_answer
from florence2.tasks.parsing import find_objects
from florence2.tasks.prompt import build_prompt
from florence2.tasks.table import TASKS, Grammar
from florence2.training.demo.batches import MENU

DOCS = Path(__file__).parents[2] / "docs"


def test_every_task_has_metrics_and_so_have_free_prompts():
    assert set(METRICS_OF) == {*TASKS, FREE}


def test_every_task_is_asked_of_the_demo_model():
    assert {tag for row in MENU for tag in row} == set(TASKS)


def test_every_grammar_and_kind_is_that_of_a_task():
    assert {task.grammar for task in TASKS.values()} == set(get_args(Grammar))
    assert {task.kind for task in TASKS.values()} == set(get_args(Kind))


@pytest.mark.parametrize("page", ["tasks.md", "evaluation.md"])
def test_every_task_is_on_the_page(page):
    assert set(re.findall(r"`(<[A-Z_]+>)`", (DOCS / page).read_text(encoding="utf-8"))) >= set(TASKS)


@pytest.mark.parametrize("tag", TASKS)
def test_every_task_has_answers_on_scenes_that_are_read_back_whole(tag):
    """Targets, the check of data sets, parsing and what a result holds agree on a task's grammar and kind."""
    scene = draw_scene(np.random.default_rng(7), size=224, options=replace(WORLD, num_objects=(3, 3), num_words=(2, 2)))
    examples = make_targets(scene, np.random.default_rng(7))[tag]
    assert examples, "the scene holds shapes and words"
    prompt = build_prompt(examples[0].prompt, image_size=scene.image.size)
    check_answer(examples[0].answer, prompt)
    result = read_answer(prompt, examples[0].answer, scene.image.size)
    assert result.kind == TASKS[tag].kind
    assert bool(result.objects) == (result.kind != "text") == bool(find_objects(TASKS[tag].grammar, examples[0].answer))
