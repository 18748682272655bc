"""Several models and adapters at replicas that hold two each: where requests for them go, and that what was dropped is loaded again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.adapters import write_adapter
from fixtures.checkpoints import checkpoint_config, write_checkpoint
from florence2.cluster.config import cluster_config
from florence2.cluster.messages import Asked
from florence2.image_files import Structure, inspect
from florence2.results import Result
from florence2.server.inference.request import RequestPrompt
from florence2.tasks.prompt import parse_prompt

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
SCENE = Path(__file__).parents[2] / "examples" / "scene.png"


@pytest.fixture(scope="module")
def handle(serve_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of two replicas with one model at the start, two more, and two adapters over the first."""
    from ray import serve

    from florence2.cluster.application import engines

    folder = tmp_path_factory.mktemp("models")
    models = {name: str(write_checkpoint(folder / name, seed=seed)) for seed, name in enumerate(("base", "b", "c"))}
    models |= {f"over{seed}": f"base+{write_adapter(folder / f'{seed}', checkpoint_config(), seed=seed)}" for seed in range(2)}
    config: dict[str, Any] = {
        "settings": {"host": "127.0.0.1", "model": ["base"], "models": models, "precision": "fp32", "log_level": "warning"},
        "engines": {"min_replicas": 2, "max_replicas": 2, "models_per_replica": 2, "num_cpus": 0.5},
    }

    class Front:
        def __init__(self, engines: Any) -> None:
            pass

    front: Any = serve.deployment(Front, ray_actor_options={"num_cpus": 0.1})
    serve.run(front.bind(engines(cluster_config(config, "the test"))), name="models", route_prefix=None)
    engines_handle = serve.get_deployment_handle("Engines", "models")
    engines_handle._init(_run_router_in_separate_loop=True)  # each test has an event loop of its own
    yield engines_handle
    serve.delete("models")


def scene() -> Structure:
    file = inspect(SCENE.read_bytes())
    assert file is not None
    return file


async def answers(handle: Any, model: str, num_requests: int = 1) -> list[Result]:
    asked = Asked(model, scene(), (RequestPrompt(parse_prompt("<CAPTION>")),), {"max_new_tokens": 4}, "", True, None)
    of_model = handle.options(multiplexed_model_id=model, session_id="scene")
    replies = await asyncio.gather(*(of_model.answer.remote(asked) for _ in range(num_requests)))
    assert all(isinstance(reply, list) for reply in replies), replies
    return [result for reply in replies for result in reply]


async def holders(handle: Any, models: Sequence[str], num_expected: int) -> list[frozenset[str]]:
    """What those who route know of the replicas that hold all of some models, once it is as many as expected."""
    router = handle._router._asyncio_router._request_router  # of that loop, which has no public name
    async with asyncio.timeout(5):
        while True:
            found = [held for held in router._held.values() if held.issuperset(models)]
            if len(found) == num_expected:
                return found
            await asyncio.sleep(0.05)


async def test_adapters_meet_where_their_base_is_and_a_dropped_model_is_loaded_again(handle: Any) -> None:
    before = {model: (await answers(handle, model))[0].token_ids for model in ("base", "over0", "over1")}
    assert len(set(map(tuple, before.values()))) == 3
    assert await holders(handle, ["base"], 2)
    (held,) = await holders(handle, ["over0"], 1)
    first = {"b": (await answers(handle, "b"))[0].token_ids, "c": (await answers(handle, "c"))[0].token_ids}
    await holders(handle, ["b", "c"], 0)  # a replica holds two, and each of these makes room for the other, if need be
    assert await holders(handle, ["base"], 2)  # which stays
    for model in ("b", "c", "b"):
        assert (await answers(handle, model))[0].token_ids == first[model]
    assert {model: (await answers(handle, model))[0].token_ids for model in before} == before
    assert held >= {"base", "over0"}


async def test_a_burst_for_a_model_that_nobody_holds_is_answered(handle: Any) -> None:
    results = await answers(handle, "c", 30)
    assert len({tuple(result.token_ids) for result in results}) == 1
