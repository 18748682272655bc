"""The decoder's key/value cache, a value that the caller holds.

Rows (one per beam) stand in the order of their requests. Each has its own keys and values for self attention; those of the encoded
prompt (cross attention) are kept once for each request, and its rows attend to them together. Requests of different lengths, beam
counts and ages share it: they enter with ``append`` and leave with ``keep``.

All memory is taken once, when the cache is made, for as many rows as it may ever hold. On a CPU pages are zero and cost nothing until
they are written to, so only what answers have needed is ever resident. Positions that hold nothing are zero or finite at all times:
masked attention multiplies them by zero, which NaN would survive.

Knows shapes and positions; nothing of weights, tokens or search.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from florence2.model.attention import Seen
from florence2.model.config import TextConfig

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DEVICE_POSITIONS = 1024  # large models know 4,096, for which 48 rows would take twenty gigabytes of a GPU


@dataclass(frozen=True)
class StepSize:
    """How large a step's tensors are: at least what the running requests need, more where shapes have to be few.

    Attributes:
        rows, requests: rows of the step, and requests that they belong to.
        beams: the most rows of a request.
        length: positions of self attention, the new one included.
        source: positions of cross attention.
    """

    rows: int
    requests: int
    beams: int
    length: int
    source: int


class Places(NamedTuple):
    """Where rows stand among the queries of the requests' prompts, which are ``requests`` times ``beams``."""

    place_of_row: Int[Tensor, " rows"]
    row_of_place: Int[Tensor, " places"]


@dataclass(frozen=True)
class Step:
    """One step's view of the cache: which position each row fills, what it sees, and whose prompt it attends to.

    Attributes:
        positions: the position that each row fills.
        seen: how many positions each row sees, the new one included.
        cross_seen: how many positions of each request's prompt its rows see.
        places: where rows stand among their requests' queries; None where they stand in that order already.
        rows: 0, 1, 2, …; None where all rows fill the same position.
    """

    size: StepSize
    self_kv: Float[Tensor, "layers 2 rows length heads head_width"]
    cross_kv: Float[Tensor, "layers 2 requests heads source head_width"]
    positions: Int[Tensor, " rows"]
    seen: Seen
    cross_seen: Seen
    places: Places | None
    rows: Int[Tensor, " rows"] | None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one new position a row, ``[rows, heads, 1, head_width]``; gives the rows' keys and values so far."""
        all_keys, all_values = self.self_kv[layer].unbind()
        if self.rows is None:
            all_keys[:, self.size.length - 1] = keys.squeeze(2)
            all_values[:, self.size.length - 1] = values.squeeze(2)
        else:
            all_keys[self.rows, self.positions] = keys.squeeze(2)
            all_values[self.rows, self.positions] = values.squeeze(2)
        return all_keys.transpose(1, 2), all_values.transpose(1, 2)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the requests' prompts, each ``[requests, heads, source, head_width]``."""
        keys, values = self.cross_kv[layer].unbind()
        return keys, values

    def group_rows(self, hidden: Float[Tensor, "rows 1 width"]) -> Float[Tensor, "requests beams width"]:
        """Rows as the queries of their request; a request with fewer beams than the widest repeats some row in their place."""
        placed = hidden if self.places is None else hidden[self.places.row_of_place]
        return placed.view(self.size.requests, self.size.beams, hidden.shape[-1])

    def ungroup_rows(self, grouped: Float[Tensor, "requests beams width"]) -> Float[Tensor, "rows 1 width"]:
        """The inverse of ``group_rows``."""
        flat = grouped.reshape(-1, 1, grouped.shape[-1])
        return flat if self.places is None else flat[self.places.place_of_row]


class DecoderCache:
    """Keys and values of all running requests.

    Args:
        config: dimensions of the text model; its positions bound prompts as well as answers.
        max_rows: the most rows, and so the most requests.
        dtype: of keys and values.
        device: where they are.

    Attributes:
        num_beams: how many rows each request has.
        row_lengths: how many positions of each row are filled.
        source_lengths: how many positions of each request's encoded prompt are valid.
    """

    def __init__(
        self, config: TextConfig, *, max_rows: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        heads, positions = config.decoder_attention_heads, usable_positions(config, self.device)
        layers, width = config.decoder_layers, config.d_model // heads
        self.max_rows = max_rows
        self.max_positions = positions
        # A row grows and moves by positions, so a position's heads stand together; a prompt comes at once and is read head by head.
        self._self_kv = _zeros((layers, 2, max_rows, positions, heads, width), dtype, self.device)
        self._cross_kv = _zeros((layers, 2, max_rows, heads, positions, width), dtype, self.device)
        # How far each row and each slot of the cross cache has ever been written to; behind that, it is zero.
        self._rows_used = [0] * max_rows
        self._slots_used = [0] * max_rows
        self.num_beams: list[int] = []
        self.row_lengths: list[int] = []
        self.source_lengths: list[int] = []
        self._slots: list[int] = []  # where in the cross cache each request's prompt is; together they are 0, 1, 2, …
        self._plan: _Plan | None = None

    @property
    def num_requests(self) -> int:
        """How many requests are in the cache."""
        return len(self.num_beams)

    @property
    def num_rows(self) -> int:
        """How many rows are in the cache, over all requests."""
        return len(self.row_lengths)

    @property
    def num_bytes(self) -> int:
        """The most memory that it can take."""
        return self._self_kv.nbytes + self._cross_kv.nbytes

    def append(self, cross: Iterable[tuple[Tensor, Tensor]], source_lengths: Sequence[int], num_beams: Sequence[int]) -> None:
        """Add requests behind those that are there.

        Args:
            cross: each layer's keys and values of the new requests, ``[requests, heads, source, head_width]``.
            source_lengths: valid positions of each new request.
            num_beams: rows of each new request.

        Raises:
            ValueError: more rows than the cache was made for.
        """
        first_row, first_slot = self.num_rows, self.num_requests
        rows = slice(first_row, first_row + sum(num_beams))
        slots = slice(first_slot, first_slot + len(num_beams))
        if rows.stop > self.max_rows:
            raise ValueError(f"the cache has room for {self.max_rows} rows; {first_row} are taken and {sum(num_beams)} more were to come")
        source = max(source_lengths)
        used = max(source, *self._slots_used[slots])
        self._slots_used[slots] = [used] * len(num_beams)  # before anything is written, for what follows may break half-way
        for layer, (keys, values) in enumerate(cross):
            self._cross_kv[layer, 0, slots, :, :source] = keys[:, :, :source]
            self._cross_kv[layer, 1, slots, :, :source] = values[:, :, :source]
        # What earlier requests have left where these are masked could be NaN.
        self._cross_kv[:, :, slots, :, source:used] = 0
        self._slots_used[slots] = [source] * len(num_beams)
        self._self_kv[:, :, rows, : max(self._rows_used[rows])] = 0
        self._rows_used[rows] = [0] * sum(num_beams)
        self.num_beams += num_beams
        self.source_lengths += source_lengths
        self.row_lengths += [0] * sum(num_beams)
        self._slots += range(slots.start, slots.stop)
        self._plan = None

    def keep(self, requests: Sequence[int]) -> None:
        """Drop every request that is not named; those that stay keep their order. Indices ascend."""
        if len(requests) == self.num_requests:
            return
        first_rows = _first_rows(self.num_beams)
        rows = [row for request in requests for row in range(first_rows[request], first_rows[request] + self.num_beams[request])]
        self._note_use()
        for target, row in enumerate(rows):
            _move(self._self_kv.transpose(3, 4), self._rows_used, row, target)
        slots = [self._slots[request] for request in requests]
        holes = sorted(set(range(len(slots))) - set(slots))
        for place, slot in enumerate(slots):
            if slot >= len(slots):  # only these move, whoever left: a prompt's tensors are the larger part by far
                slots[place] = holes.pop()
                _move(self._cross_kv, self._slots_used, slot, slots[place])
        self._slots = slots
        self.num_beams = [self.num_beams[request] for request in requests]
        self.row_lengths = [self.row_lengths[row] for row in rows]
        self.source_lengths = [self.source_lengths[request] for request in requests]
        self._plan = None

    def reorder(self, parents: Sequence[int]) -> None:
        """Let row ``i`` continue the history of row ``parents[i]``, which belongs to the same request."""
        moved = [row for row, parent in enumerate(parents) if row != parent]
        if not moved:
            return
        target = torch.tensor(moved, device=self.device)
        source = torch.tensor([parents[row] for row in moved], device=self.device)
        filled = self._self_kv[:, :, :, : max(self.row_lengths)]
        filled[:, :, target] = filled[:, :, source]

    def begin_step(self, size: StepSize | None = None) -> Step:
        """The next step's view of the cache, with room for one more position in every row.

        Args:
            size: larger than needed, where shapes have to be few; None for just what is needed.
        """
        if self._plan is None:
            self._plan = self._make_plan()
        plan = self._plan
        if size is None:
            size = StepSize(self.num_rows, self.num_requests, plan.beams, max(self.row_lengths) + 1, plan.cross_seen.size)
            seen = Seen(plan.lengths, size.length, is_all=not plan.is_ragged)
            return self._view(size, plan.positions, seen, plan.cross_seen, plan.places, plan.rows if plan.is_ragged else None)
        rows = size.rows - self.num_rows
        seen = Seen(F.pad(plan.lengths, (0, rows), value=1), size.length, is_all=False)
        key = (size.rows, size.requests, size.beams)
        if key not in plan.padded:
            # A slot without a request sees one position, so that no row of its scores is empty.
            cross_lengths = F.pad(plan.cross_seen.lengths, (0, size.requests - self.num_requests), value=1)
            plan.padded[key] = cross_lengths, self._places(size), torch.arange(size.rows, device=self.device)
        cross_lengths, places, numbers = plan.padded[key]
        cross_seen = Seen(cross_lengths, size.source, is_all=False)
        return self._view(size, F.pad(plan.positions, (0, rows)), seen, cross_seen, places, numbers)

    def needed_size(self) -> StepSize:
        """The size of the next step."""
        return StepSize(self.num_rows, self.num_requests, max(self.num_beams), max(self.row_lengths) + 1, max(self.source_lengths))

    def end_step(self) -> None:
        """Count the positions that the step has filled."""
        self.row_lengths = [length + 1 for length in self.row_lengths]
        if self._plan is not None:
            self._plan.positions += 1
            self._plan.lengths += 1

    def clear(self) -> None:
        """Drop every request, whatever a step that broke has left behind."""
        self.row_lengths = [length + 1 for length in self.row_lengths]
        self.keep([])

    def _view(self, size: StepSize, positions: Tensor, seen: Seen, cross_seen: Seen, *order: Any) -> Step:
        self_kv = self._self_kv[:, :, : size.rows, : size.length]
        cross_kv = self._cross_kv[:, :, : size.requests, :, : size.source]
        return Step(size, self_kv, cross_kv, positions, seen, cross_seen, *order)

    def _make_plan(self) -> _Plan:
        """Work out what changes only when requests enter or leave."""
        beams, source = max(self.num_beams), max(self.source_lengths)
        sources = [0] * self.num_requests
        for slot, length in zip(self._slots, self.source_lengths, strict=True):
            sources[slot] = length
        is_in_order = self._slots == list(range(self.num_requests)) and min(self.num_beams) == beams
        positions = torch.tensor(self.row_lengths, device=self.device)
        return _Plan(
            beams=beams,
            positions=positions,
            lengths=(positions + 1).int(),
            is_ragged=len(set(self.row_lengths)) > 1,
            cross_seen=Seen.of(sources, source, self.device),
            places=None if is_in_order else self._places(StepSize(self.num_rows, self.num_requests, beams, 0, source)),
            rows=torch.arange(self.num_rows, device=self.device),
        )

    def _places(self, size: StepSize) -> Places:
        place_of_row = [slot * size.beams + beam for slot, count in zip(self._slots, self.num_beams, strict=True) for beam in range(count)]
        row_of_place = [0] * (size.requests * size.beams)
        for row, place in enumerate(place_of_row):
            row_of_place[place] = row
        place_of_row += [0] * (size.rows - len(place_of_row))
        return Places(torch.tensor(place_of_row, device=self.device), torch.tensor(row_of_place, device=self.device))

    def _note_use(self) -> None:
        self._rows_used[: self.num_rows] = [max(used) for used in zip(self._rows_used, self.row_lengths, strict=False)]


@dataclass
class _Plan:
    """What a cache works out anew only when requests enter or leave; ``positions`` and ``lengths`` count up with every step."""

    beams: int
    positions: Int[Tensor, " rows"]
    lengths: Int[Tensor, " rows"]
    is_ragged: bool
    cross_seen: Seen
    places: Places | None
    rows: Int[Tensor, " rows"]
    padded: dict[tuple[int, int, int], tuple[Tensor, Places, Tensor]] = field(default_factory=dict)


def usable_positions(config: TextConfig, device: torch.device) -> int:
    """How many positions prompts and answers can have on a device: all that the model knows, where memory is taken as it is used.

    Windows has to vouch for all memory beforehand, as GPUs do.
    """
    is_taken_as_used = device.type == "cpu" and hasattr(mmap, "MAP_PRIVATE")
    return config.max_position_embeddings if is_taken_as_used else min(config.max_position_embeddings, DEVICE_POSITIONS)


# Private pages, whose number the system does not have to vouch for beforehand.
_PRIVATE: dict[str, Any] = {}
if hasattr(mmap, "MAP_PRIVATE"):
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)}


def _zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU from pages that the system hands out when they are first written to, small ones where it has a choice."""
    if device.type != "cpu":
        return torch.zeros(*shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, **_PRIVATE)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


def _move(tensors: Tensor, used: list[int], source: int, target: int) -> None:
    """Let ``target`` be what ``source`` is, as far as either has been written to; places of the third of ``tensors``' dimensions."""
    if source == target:
        return
    length = max(used[source], used[target])
    tensors[:, :, target, :, :length] = tensors[:, :, source, :, :length]
    used[target] = used[source]


def _first_rows(num_beams: Sequence[int]) -> list[int]:
    """Where each request's rows begin."""
    starts, row = [], 0
    for count in num_beams:
        starts.append(row)
        row += count
    return starts
