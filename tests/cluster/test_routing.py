"""Which replica a request goes to: the order by itself, and Serve's own loop over scripted replicas."""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install 'florence2-engine[cluster]'")

from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
from ray.serve.request_router import PendingRequest, RequestRouter

from florence2.cluster.routing import (
    ABOVE_MEAN,
    AT_START,
    BASES,
    FEW,
    IS_UP,
    ImageAffinityRouter,
    Member,
    Routing,
    in_order,
    preferred,
    router_config,
)

pytestmark = pytest.mark.anyio

TARGET = 32
names = st.lists(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=1, max_size=12, unique=True)


def members(*loads: int, models: Sequence[str] = ("m",), most: int = 100) -> list[Member]:
    return [Member(f"r{index}", load, most, frozenset(models)) for index, load in enumerate(loads)]


def first(found: list[Member], image: str = "i", model: str = "m", base: str = "") -> str:
    return preferred(found, model, base, image, TARGET)[0][0]


@settings(deadline=None)
@given(names, st.text(max_size=5), st.integers(0, 11))
def test_only_what_a_lost_replica_had_moves(replicas: list[str], key: str, index: int) -> None:
    lost = replicas[index % len(replicas)]
    assert in_order([name for name in replicas if name != lost], key) == [name for name in in_order(replicas, key) if name != lost]


def test_images_are_spread_evenly() -> None:
    shares = Counter(first(members(0, 0, 0, 0), image=str(index)) for index in range(2000))
    assert len(shares) == 4
    assert min(shares.values()) > 0.8 * 500


@settings(deadline=None)
@given(names.flatmap(lambda found: st.tuples(st.just(found), st.lists(st.integers(0, 12), min_size=len(found), max_size=len(found)))))
def test_every_replica_is_tried_in_the_end(given_: tuple[list[str], list[int]]) -> None:
    found = [Member(name, load, 10, frozenset()) for name, load in zip(*given_, strict=True)]
    for model, image in (("", ""), ("m", ""), ("m", "i"), ("", "i")):
        assert {name for rank in preferred(found, model, "b", image, TARGET) for name in rank} == set(given_[0])


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=10), st.text(max_size=3))
def test_a_replica_above_the_bound_is_passed_over(loads: list[int], image: str) -> None:
    chosen = loads[int(first(members(*loads), image=image or "i")[1:])]
    assert chosen < max(FEW, ABOVE_MEAN * (sum(loads) + 1) / len(loads))


def test_a_hot_image_goes_on_to_the_next_replica_and_stays_there() -> None:
    order = in_order(["r0", "r1", "r2", "r3"], "i")
    loads = dict.fromkeys(order, 0)
    taken = []
    for _ in range(40):
        name = first([Member(name, load, 100, frozenset("m")) for name, load in loads.items()])
        loads[name] += 1
        taken.append(name)
    assert taken[:FEW] == [order[0]] * FEW  # five prompts about one image
    assert list(dict.fromkeys(taken)) == order  # none is idle
    assert max(loads.values()) <= math.ceil(ABOVE_MEAN * 40 / 4)
    assert min(loads.values()) >= 0.4 * 40 / 4


def test_full_replicas_spill_over() -> None:
    own = first(members(0, 0, 0, most=4))
    full = [replace(one, num_requests=4) if one.name == own else one for one in members(3, 3, 3, most=4)]
    assert first(full) != own


def test_the_model_comes_before_the_image() -> None:
    found = [*members(2, 2), replace(members(0)[0], name="r2", models=frozenset("x"))]
    assert {first(found, image=str(index)) for index in range(50)} == {"r0", "r1"}


def test_a_new_model_is_loaded_by_one_replica() -> None:
    found = members(0, 0, 0, 0, models="x")
    assert len({first(found, image=str(index), model="new") for index in range(50)}) == 1
    assert len({first(found, model=str(index)) for index in range(50)}) == 4


def test_a_new_model_goes_where_fewest_are() -> None:
    found = [*members(0, 0, models="xyz"), replace(members(3)[0], name="r2", models=frozenset("x"))]
    assert {first(found, model=str(index)) for index in range(20)} == {"r2"}


def test_another_replica_loads_a_model_only_when_those_that_have_it_are_fully_loaded() -> None:
    without = [replace(one, name=f"w{one.name}") for one in members(0, 0, models="x")]
    assert first([*members(TARGET - 1), *without]) == "r0"
    assert first([*members(TARGET), *without]).startswith("w")


def test_an_adapter_goes_where_its_base_is() -> None:
    found = [*members(0, 0, models="x"), *(replace(one, name="base") for one in members(3, models=("b",)))]
    assert first(found, model="b+a", base="b") == "base"
    holding = [*found, *(replace(one, name="both") for one in members(4, models=("b", "b+a")))]
    assert first(holding, model="b+a", base="b") == "both"
    busy = [*found, *(replace(one, name="both") for one in members(30, models=("b", "b+a")))]
    assert first(busy, model="b+a", base="b") == "base"


def test_without_an_image_the_least_loaded_is_next() -> None:
    (rank, *_) = preferred(members(3, 1, 2), "m", "", "", TARGET)
    assert set(rank) == {"r0", "r1", "r2"}  # Serve takes the one of them that has fewest requests


@dataclass
class Replica:
    """A replica as Serve's router sees it."""

    name: str
    num_requests: int = 0
    max_ongoing_requests: int = 100
    multiplexed_model_ids: set[str] = field(default_factory=set)
    metadata: dict[str, Any] = field(default_factory=dict)

    routing_stats: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.replica_id = ReplicaID(self.name, DeploymentID("Engines"))

    @property
    def replica_metadata(self) -> dict[str, Any]:
        return self.metadata

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return self.num_requests


@dataclass
class Traffic:
    """Calls through a router, which replicas accept or reject."""

    router: ImageAffinityRouter
    replicas: dict[str, Replica] = field(default_factory=dict)

    def run(self, *replicas: Replica) -> None:
        self.replicas = {one.name: one for one in replicas}
        self.router.update_replicas(list(replicas))  # type: ignore[arg-type]

    async def call(self, image: str = "i", model: str = "m", request_id: str = "r") -> str:
        """The replica that takes a call; it has it from then on. As Serve does it, a call that is rejected is routed again."""
        metadata = RequestMetadata(request_id, request_id, multiplexed_model_id=model, session_id=image)
        pending, is_retry = PendingRequest([], {}, metadata), False
        while True:
            chosen: Any = await self.router._choose_replica_for_request(pending, is_retry=is_retry)
            self.router.on_send_request(chosen.replica_id)
            await asyncio.sleep(0)
            accepts = chosen.num_requests < chosen.max_ongoing_requests
            chosen.num_requests += accepts
            self.router.on_new_queue_len_info(chosen.replica_id, chosen.num_requests)
            if accepts:
                return chosen.name
            is_retry = True

    def end(self, name: str) -> None:
        self.replicas[name].num_requests -= 1
        self.router.decrement_queue_len_cache(self.replicas[name].replica_id)


@asynccontextmanager
async def traffic(routing: Routing = "image") -> AsyncIterator[Traffic]:
    config: Any = router_config(routing, TARGET)
    router_class = config.get_request_router_class()  # pickled by value, as Serve does it
    source = DeploymentHandleSource.REPLICA
    router = router_class(DeploymentID("Engines"), source, use_replica_queue_len_cache=True, initial_backoff_s=0.001, max_backoff_s=0.01)
    router.initialize_state(**config.request_router_kwargs)
    async with asyncio.timeout(10):
        yield Traffic(router)


async def test_by_load_one_image_is_asked_about_everywhere_its_model_is() -> None:
    async with traffic("load") as calls:
        facts = {AT_START: ["m"]}
        calls.run(Replica("a", metadata=facts), Replica("b", metadata=facts), Replica("c"))
        assert Counter([await calls.call("one image") for _ in range(10)]) == {"a": 5, "b": 5}


@pytest.mark.parametrize("name", ["florence2", "florence2.cluster", "florence2.cluster.routing"])
def test_the_router_needs_nothing_of_this_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Processes that route may have another version of it."""
    config = router_config("image")
    monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    assert issubclass(config.get_request_router_class(), RequestRouter)  # type: ignore[arg-type]


async def test_five_prompts_about_an_image_meet_one_replica() -> None:
    async with traffic() as calls:
        calls.run(*(Replica(name, multiplexed_model_ids={"m"}) for name in "abcd"))
        for image in "12345678":
            taken = await asyncio.gather(*(calls.call(image, request_id=f"{image}-{index}") for index in range(5)))
            assert len(set(taken)) == 1
            for name in taken:
                calls.end(name)


async def test_calls_of_one_http_request_are_all_sent() -> None:
    """Serve gives all calls of one request the same id, by which it looks for the one that it has found a replica for."""
    async with traffic() as calls:
        calls.run(*(Replica(name, multiplexed_model_ids={"m"}) for name in "abcd"))
        images = [str(index) for index in range(20)]
        taken = await asyncio.gather(*(calls.call(image, request_id="same") for image in images))
        assert dict(zip(images, taken, strict=True)) == {image: in_order("abcd", image)[0] for image in images}
        assert not calls.router._pending_requests_by_id


async def test_many_calls_about_one_image_at_once_do_not_all_meet_one_replica() -> None:
    async with traffic() as calls:
        calls.run(*(Replica(name, multiplexed_model_ids={"m"}) for name in "abcd"))
        await asyncio.sleep(0.01)  # Serve asks new replicas how many requests they have
        taken = Counter(await asyncio.gather(*(calls.call(request_id=str(index)) for index in range(40))))
        assert max(taken.values()) <= math.ceil(ABOVE_MEAN * 40 / 4)
        assert min(taken[name] for name in "abcd") >= 0.4 * 40 / 4


async def test_calls_wait_for_the_first_replica() -> None:
    async with traffic() as calls:
        calls.run()
        waiting = [asyncio.ensure_future(calls.call(request_id=str(index))) for index in range(5)]
        await asyncio.sleep(0.02)
        assert not any(one.done() for one in waiting)
        calls.run(Replica("a", metadata={AT_START: ["m"]}))
        assert await asyncio.gather(*waiting) == ["a"] * 5


async def test_more_calls_than_room_are_all_taken_in_the_end() -> None:
    async with traffic() as calls:
        calls.run(*(Replica(name, max_ongoing_requests=2, multiplexed_model_ids={"m"}) for name in "abc"))
        taken: list[str] = []

        async def one(index: int) -> None:
            name = await calls.call(request_id=str(index))
            taken.append(name)
            assert calls.replicas[name].num_requests <= 2
            await asyncio.sleep(0.005)
            calls.end(name)

        await asyncio.gather(*(one(index) for index in range(60)))
        assert len(taken) == 60
        assert set(taken) == set("abc")  # all about one image


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async with traffic() as calls:
        full = Replica("a", num_requests=1, max_ongoing_requests=1)
        calls.run(full)
        waiting = asyncio.ensure_future(calls.call())
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert not calls.router._pending_requests_by_id
        calls.end("a")
        assert await calls.call() == "a"


async def test_a_replica_that_dies_is_tried_no_more_and_others_keep_their_images() -> None:
    async with traffic() as calls:
        calls.run(*(Replica(name, multiplexed_model_ids={"m"}) for name in "abcd"))
        images = [str(index) for index in range(40)]

        async def one_by_one() -> dict[str, str]:
            taken = {}
            for image in images:
                taken[image] = await calls.call(image)
                calls.end(taken[image])
            return taken

        before = await one_by_one()
        calls.router.on_replica_actor_died(calls.replicas["b"].replica_id)
        after = await one_by_one()
        assert {image for image in images if before[image] != after[image]} == {image for image in images if before[image] == "b"}


async def test_a_replica_without_an_engine_gets_requests_only_if_all_are() -> None:
    async with traffic() as calls:
        up, down = Replica("a", metadata={AT_START: ["m"]}), Replica("b", metadata={AT_START: ["m"]}, routing_stats={IS_UP: False})
        calls.run(up, down)
        assert {await calls.call(str(index)) for index in range(30)} == {"a"}
        up.routing_stats = {IS_UP: False}
        calls.run(up, down)
        assert {await calls.call(str(index)) for index in range(30)} == {"a", "b"}


async def test_what_replicas_report_of_models_and_bases_counts() -> None:
    async with traffic() as calls:
        facts = {AT_START: ["pinned"], BASES: {"shoes": "big"}}
        calls.run(Replica("a", metadata=facts), Replica("b", metadata=facts, multiplexed_model_ids={"shoes"}), Replica("c", metadata=facts))
        assert {await calls.call(str(index), "pinned") for index in range(12)} == {"a", "b", "c"}
        assert {await calls.call(str(index), "big") for index in range(4)} == {"b"}  # which has it below the adapter
        found = {await calls.call(str(index), "other") for index in range(4)}
        assert len(found) == 1
        assert found <= {"a", "c"}
