"""Which engine replica a request goes to: by its model first, then by its image.

In: the running replicas, with the models that each holds and the requests that it has as far as this handle knows, and a pending request
with a model id and the digest of its image file (``session_id``). Out: replicas in the order in which they are to be tried. Requests about
one image meet one replica, whose engine has the encoded image, unless that replica has much more to do than the others. Knows nothing of
rows, images or HTTP. Serve pickles the classes of this module by value: it imports nothing of this package.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import MultiplexMixin, PendingRequest, ReplicaID, RequestRouter, RunningReplica

Routing = Literal["image", "load"]

ABOVE_MEAN = 1.5
"""A replica with so many times the mean of all replicas' requests is passed over, though it has the image."""
FEW = 5
"""With fewer requests than these it never is: so many prompts about one image are often sent at once."""
DEFAULT_TARGET = 32
"""The requests of a replica that is fully loaded, where nobody says how many those are."""

LATE_S = 5.0
"""A request that a replica has not answered for so long may have got lost on its way."""

ASKED_EACH_S = 2.0
"""Serve asks each replica so often for its ``record_routing_stats``."""

IS_UP = "is_up"
"""What that returns: whether the replica has an engine. One that has none fails requests at once, and seems to have the least to do."""
AT_START, BASES = "models_at_start", "bases"
"""What a replica's ``record_replica_metadata`` returns: the ids of the models that every replica holds, and the base of each adapter."""


def router_config(routing: Routing, target: int = DEFAULT_TARGET) -> RequestRouterConfig:
    """How Serve is to route the requests of the engines.

    Args:
        routing: "image": by model, then by image; "load": by model, then the one that has least to do.
        target: the requests of a replica that is fully loaded.
    """
    return RequestRouterConfig(
        request_router_class=ImageAffinityRouter,  # type: ignore[arg-type]
        request_router_kwargs={"target": target, "is_by_image": routing == "image"},  # type: ignore[arg-type]
        request_routing_stats_period_s=ASKED_EACH_S,  # type: ignore[arg-type]
    )


def in_order(names: Iterable[str], key: str) -> list[str]:
    """The names as a key prefers them: for each key another order, which the others keep if one of the names goes or comes."""
    salt = key.encode()
    return sorted(names, key=lambda name: blake2b(name.encode() + b"|" + salt, digest_size=8).digest(), reverse=True)


@dataclass(frozen=True)
class Member:
    """One of the replicas to choose among.

    Attributes:
        name: its name, for as long as it runs.
        num_requests: the requests that it has, as far as is known.
        max_requests: with so many it takes no more.
        models: the ids of the models that it holds or loads.
    """

    name: str
    num_requests: int
    max_requests: int
    models: frozenset[str]


def preferred(members: Sequence[Member], model: str, base: str, image: str, target: int) -> list[list[str]]:
    """The replicas to be tried one after the other; those in one list are equally good, so that the one with fewest requests is next.

    A replica that holds the model comes first. Among those the image chooses, by an order of its own: the first one with fewer requests
    than ``ABOVE_MEAN`` times the mean of all replicas, the next ones with fewer than the mean; a few requests, which one batch takes in its
    stride, are never too many. Beyond that a replica that holds the adapter's base takes it, and one that holds neither only if those that
    do are fully loaded: loading a model takes seconds. Then it is the one with fewest models, of several always the same one, so that a
    model that is new is not loaded everywhere at once.

    Args:
        members: the running replicas.
        model: the model's id; "" for a request of none.
        base: the id of the model that ``model`` is an adapter over; "" if it is none.
        image: the digest of the image; "" if there is none, or several.
        target: the requests of a replica that is fully loaded.
    """
    mean = (sum(member.num_requests for member in members) + 1) / max(len(members), 1)
    few = max(FEW, target / 8)
    most = max(ABOVE_MEAN * mean, few)
    holding = [one for one in members if model in one.models] if model else list(members)
    near = [one for one in members if base in one.models and one not in holding] if base else []
    ranks = _by_image(holding, image, most, max(mean, few))
    ranks += _by_model(_with_room(near, most), model)
    is_full = all(one.num_requests >= min(target, one.max_requests) for one in (*holding, *near))
    others = [one for one in members if one not in holding and one not in near]
    if is_full:
        ranks += _by_model(_fewest_models(_with_room(others, most)), model)
    ranks += [_names(tier) for tier in (holding, near, others) if tier]
    return ranks


def _with_room(members: Sequence[Member], most: float) -> list[Member]:
    return [one for one in members if one.num_requests < min(most, one.max_requests)]


def _fewest_models(members: Sequence[Member]) -> list[Member]:
    fewest = min((len(one.models) for one in members), default=0)
    return [one for one in members if len(one.models) == fewest]


def _by_image(members: Sequence[Member], image: str, most: float, least: float) -> list[list[str]]:
    """The image's own replica if it has room, or else the next one in its order that has; without an image, all that have."""
    if not image:
        return [names] if (names := _names(_with_room(members, most))) else []
    by_name = {one.name: one for one in members}
    order = [by_name[name] for name in in_order(by_name, image)]
    found = [*_with_room(order[:1], most), *_with_room(order[1:], least)]
    return [[one.name] for one in found[:2]]


def _by_model(members: Sequence[Member], model: str) -> list[list[str]]:
    return [[name] for name in in_order(_names(members), model)[:1]]


def _names(members: Sequence[Member]) -> list[str]:
    """Their names by chance: of those with equally few requests, the first is taken."""
    names = [one.name for one in members]
    random.shuffle(names)
    return names


class ImageAffinityRouter(MultiplexMixin, RequestRouter):
    """Serve's router of the engine replicas; ``preferred`` decides."""

    _target, _is_by_image = DEFAULT_TARGET, True

    def initialize_state(self, target: int = DEFAULT_TARGET, is_by_image: bool = True, **_: Any) -> None:
        """Take the arguments of ``router_config``."""
        self._target, self._is_by_image = target, is_by_image
        self._chosen: Counter[ReplicaID] = Counter()
        self._on_the_way: dict[ReplicaID, deque[float]] = defaultdict(deque)  # when a replica was chosen that has not answered yet

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Note which models the replicas hold, by what they have reported."""
        metadata = {one.replica_id: one.replica_metadata for one in replicas}
        for gone in self._on_the_way.keys() - metadata.keys():
            del self._on_the_way[gone], self._chosen[gone]
        self._bases: Mapping[str, str] = {model: base for one in metadata.values() for model, base in one.get(BASES, {}).items()}
        self._held: Mapping[ReplicaID, frozenset[str]] = {
            one.replica_id: self._with_bases({*one.multiplexed_model_ids, *metadata[one.replica_id].get(AT_START, ())}) for one in replicas
        }
        self._down = {one.replica_id for one in replicas if not one.routing_stats.get(IS_UP, True)}
        super().update_replicas(replicas)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replicas in the order in which they are to be tried; Serve asks again, after a pause, if none of them takes the request."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        asked = pending_request.metadata
        candidate_replicas = [one for one in candidate_replicas if one.replica_id not in self._down] or candidate_replicas
        replicas = {one.replica_id.unique_id: one for one in candidate_replicas}
        model = asked.multiplexed_model_id
        image = asked.session_id if self._is_by_image else ""
        ranks = preferred([self._member(one) for one in candidate_replicas], model, self._bases.get(model, ""), image, self._target)
        return [[replicas[name] for name in rank] for rank in ranks]

    def _member(self, replica: RunningReplica) -> Member:
        known = self._replica_queue_len_cache.get(replica.replica_id)  # None: unknown, so that Serve asks the replica before it sends
        held = self._held.get(replica.replica_id, frozenset())
        return Member(replica.replica_id.unique_id, known or 0, replica.max_ongoing_requests, held)

    def _with_bases(self, models: set[str]) -> frozenset[str]:
        return frozenset(models | {self._bases[model] for model in models if model in self._bases})

    # Serve counts a request at a replica once it is sent, and forgets those on their way when the replica says how many it has. But it
    # chooses for many requests before it sends one: all about one image would go to one replica.

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a request that goes to all replicas; others were counted when the replica was chosen."""
        if self._chosen[replica_id]:
            self._chosen[replica_id] -= 1
        else:
            super().on_send_request(replica_id)

    def on_new_queue_len_info(self, replica_id: ReplicaID, num_ongoing_requests: int) -> None:
        """Note what a replica says that a request has reached; others are still on their way."""
        waiting = self._on_the_way[replica_id]
        oldest = self._get_curr_time_s() - LATE_S
        while waiting and waiting.popleft() < oldest:
            pass
        super().on_new_queue_len_info(replica_id, num_ongoing_requests + len(waiting))

    def _fulfill_next_pending_request(self, replica: RunningReplica, request_metadata: Any = None) -> None:
        if self._get_pending_request_matching_internal_request_id(request_metadata) is not None:
            self._on_the_way[replica.replica_id].append(self._get_curr_time_s())
            self._chosen[replica.replica_id] += 1
            super().on_send_request(replica.replica_id)
        super()._fulfill_next_pending_request(replica, request_metadata)

    # Serve finds the pending request for a replica by the id of the HTTP request, which several calls of one request share (one for each
    # image): all but the first would never be sent. Each call has metadata of its own.

    def _add_pending_request_to_indices(self, pending_request: PendingRequest) -> None:
        self._pending_requests_by_id[_number(pending_request.metadata)] = pending_request

    def _remove_pending_request_from_indices(self, pending_request: PendingRequest) -> None:
        self._pending_requests_by_id.pop(_number(pending_request.metadata), None)

    def _get_pending_request_matching_internal_request_id(self, request_metadata: Any = None) -> PendingRequest | None:
        pending = self._pending_requests_by_id.get(_number(request_metadata))
        return None if pending is None or pending.future.done() else pending


def _number(metadata: Any) -> str:
    return str(id(metadata))
