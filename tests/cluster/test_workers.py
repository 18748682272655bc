"""What an engine of a labelling run gets of a cluster's processors."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from florence2.cluster.labelling import _take_threads
from florence2.cluster.pipeline import lack_of_room, workers
from florence2.openmp import THREADS


@pytest.mark.parametrize(
    ("nodes", "num_engines", "num_cpus", "num_threads"),
    [
        ([2.0], None, 1.0, 2),  # one engine has the whole of a small machine
        ([2.0], 2, 0.75, 1),
        ([1.0], None, 0.75, 1),
        ([3.0], None, 2.0, 3),
        ([16.0], None, 12.0, 12),
        ([16.0], 4, 3.0, 3),
        ([16.0, 16.0], None, 12.0, 12),
        ([4.0, 2.0], None, 2.0, 3),
    ],
)
def test_engines_compute_with_all_of_a_small_machine_and_with_most_of_a_large_one(
    nodes: list[float], num_engines: int | None, num_cpus: float, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": sum(nodes)})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": count}} for count in nodes])
    plan = workers(num_engines, "auto", None)
    assert (plan.num_cpus, plan.num_threads) == (num_cpus, num_threads)


@pytest.mark.parametrize(
    ("free", "said"),
    [
        ({"CPU": 1.2}, "processor cores are taken: an engine and reading for it need 1.25, and 1.2 of 2 are free"),
        ({}, "processor cores are taken: an engine and reading for it need 1.25, and 0 of 2 are free"),
        ({"CPU": 1.25}, None),
    ],
)
def test_a_run_that_has_to_wait_for_others_says_so(free: dict[str, float], said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "available_resources", lambda: free)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    lack = lack_of_room(workers(None, "auto", None))
    assert lack is None if said is None else said in str(lack)


def test_gpus_that_others_have_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 8.0, "GPU": 0.5})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}])
    assert "GPUs are taken: an engine needs 1, and 0.5 of 2 are free" in str(lack_of_room(workers(None, "auto", None)))


@pytest.mark.parametrize(("given", "is_taken"), [("1", True), ("3", False), (None, False)])
def test_threads_that_the_user_has_chosen_stay(given: str | None, is_taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SimpleNamespace(get_assigned_resources=lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setenv(THREADS, given) if given else monkeypatch.delenv(THREADS, raising=False)
    before = torch.get_num_threads()
    try:
        _take_threads(before + 1)
        assert torch.get_num_threads() == before + is_taken
        assert os.environ.get(THREADS) == (None if is_taken else given)
    finally:
        torch.set_num_threads(before)


def test_the_driver_and_the_readers_need_no_pytorch() -> None:
    """Each of them is a process that has to start, and importing PyTorch takes as long as all the rest."""
    script = "import sys, florence2.cluster.labelling, florence2.cluster.pipeline, florence2.cluster.reading; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
