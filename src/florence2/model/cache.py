"""The decoder's key/value cache.

A row is one beam of a request; rows are in the order of their requests. Each row has its own keys and values for self attention. Keys and
values of the encoded prompt (cross attention) are stored once for each request, in a slot, and all its rows attend to them. Requests of
different lengths, numbers of beams and ages share the cache: ``append`` adds them, ``keep`` removes them.

All memory is allocated once, for the largest number of rows. On a CPU a page takes no memory until it is written to. Unused positions are
always zero or finite: masked attention multiplies them by zero, and zero times NaN is NaN. So the cache remembers how far each row and
each slot has been written to, and clears that much before it is used again.

Knows shapes and positions; nothing of weights, tokens or search.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from florence2.model.attention import KeyLengths
from florence2.model.config import TextConfig

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DEVICE_POSITIONS = 1024  # large models have 4,096 positions, with which 48 rows would take 20 GB of a GPU


@dataclass(frozen=True)
class StepSize:
    """The size of a step's tensors: what the running requests need, or more where only a few shapes are allowed (CUDA graphs).

    Attributes:
        rows: the number of rows.
        requests: the number of requests.
        beams: the largest number of rows of one request.
        length: positions of self attention, the new one included.
        source: positions of cross attention.
    """

    rows: int
    requests: int
    beams: int
    length: int
    source: int


class QueryPermutation(NamedTuple):
    """The mapping between rows and the queries of cross attention, of which each slot has ``beams``."""

    query_of_row: Int[Tensor, " rows"]
    row_of_query: Int[Tensor, " queries"]


class StepNumbers(NamedTuple):
    """What changes from step to step of one size, as plain numbers.

    Attributes:
        positions: the position that each row fills.
        lengths: valid positions of each row, the new one included.
        sources: valid positions of each slot of cross attention.
        order: ``query_of_row`` and ``row_of_query`` of ``QueryPermutation``; None if rows and queries have the same order.
    """

    positions: list[int]
    lengths: list[int]
    sources: list[int]
    order: tuple[list[int], list[int]] | None


class StepTensors(NamedTuple):
    """The same in tensors, on the cache's device."""

    positions: Int[Tensor, " rows"]
    lengths: Int[Tensor, " rows"]
    sources: Int[Tensor, " requests"]
    permutation: QueryPermutation | None


@dataclass(frozen=True)
class Step:
    """One step's view of the cache.

    Attributes:
        size: the size of the tensors.
        self_kv: keys and values of self attention.
        cross_kv: keys and values of cross attention, by slot.
        positions: the position that each row fills in this step.
        key_lengths: valid positions of each row, the new one included.
        cross_key_lengths: valid positions of each slot.
        permutation: the mapping between rows and queries; None if they have the same order.
        rows: 0, 1, 2, …; None if all rows fill the same position.
        row_groups: the first row and the number of rows of each slot; None where the step is larger than what the requests need.
    """

    size: StepSize
    self_kv: Float[Tensor, "layers 2 rows length heads head_width"]
    cross_kv: Float[Tensor, "layers 2 requests heads source head_width"]
    positions: Int[Tensor, " rows"]
    key_lengths: KeyLengths
    cross_key_lengths: KeyLengths
    permutation: QueryPermutation | None
    rows: Int[Tensor, " rows"] | None
    row_groups: Int[Tensor, "requests 2"] | None = None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one new position of each row, ``[rows, heads, 1, head_width]``, and return all keys and values of the rows."""
        all_keys, all_values = self.self_kv[layer].unbind()
        if self.rows is None:
            all_keys[:, self.size.length - 1] = keys.squeeze(2)
            all_values[:, self.size.length - 1] = values.squeeze(2)
        else:
            all_keys[self.rows, self.positions] = keys.squeeze(2)
            all_values[self.rows, self.positions] = values.squeeze(2)
        return all_keys.transpose(1, 2), all_values.transpose(1, 2)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoded prompts, each ``[requests, heads, source, head_width]``."""
        keys, values = self.cross_kv[layer].unbind()
        return keys, values

    def group_rows(self, hidden: Float[Tensor, "rows 1 width"]) -> Float[Tensor, "requests beams width"]:
        """The rows as queries of their request; a request with fewer than ``beams`` rows repeats some row."""
        permuted = hidden if self.permutation is None else hidden[self.permutation.row_of_query]
        return permuted.view(self.size.requests, self.size.beams, hidden.shape[-1])

    def ungroup_rows(self, grouped: Float[Tensor, "requests beams width"]) -> Float[Tensor, "rows 1 width"]:
        """The inverse of ``group_rows``."""
        flat = grouped.reshape(-1, 1, grouped.shape[-1])
        return flat if self.permutation is None else flat[self.permutation.query_of_row]


class DecoderCache:
    """Keys and values of all running requests.

    Args:
        config: dimensions of the text model; its positions limit prompts as well as answers.
        max_rows: the largest number of rows, and so of requests.
        dtype: the type of keys and values.
        device: the device of keys and values.

    Attributes:
        num_beams: the number of rows of each request.
        row_lengths: the number of filled positions of each row.
        source_lengths: the number of valid positions of each request's encoded prompt.
    """

    def __init__(
        self, config: TextConfig, *, max_rows: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        heads, positions = config.decoder_attention_heads, usable_positions(config, self.device)
        layers, width = config.decoder_layers, config.d_model // heads
        self.max_rows = max_rows
        self.max_positions = positions
        # A row is written and moved position by position, so heads are inside positions; a prompt is written at once and read by head.
        self._self_kv = _zeros((layers, 2, max_rows, positions, heads, width), dtype, self.device)
        self._cross_kv = _zeros((layers, 2, max_rows, heads, positions, width), dtype, self.device)
        # The number of positions of each row and each slot that were written to since they were last cleared; the others are zero.
        self._rows_written = [0] * max_rows
        self._slots_written = [0] * max_rows
        # The most positions of each that were ever written to: so much of the memory has become resident.
        self._rows_highest = [0] * max_rows
        self._slots_highest = [0] * max_rows
        self.num_beams: list[int] = []
        self.row_lengths: list[int] = []
        self.source_lengths: list[int] = []
        self._slots: list[int] = []  # the slot of each request's prompt in the cross cache; a permutation of 0, 1, 2, …
        self._plan: _Plan | None = None

    @property
    def num_requests(self) -> int:
        """The number of requests in the cache."""
        return len(self.num_beams)

    @property
    def num_rows(self) -> int:
        """The number of rows in the cache, over all requests."""
        return len(self.row_lengths)

    @property
    def num_bytes(self) -> int:
        """The memory that is allocated, in bytes; on a CPU the largest amount that can become resident."""
        return self._self_kv.nbytes + self._cross_kv.nbytes

    @property
    def resident_bytes(self) -> int:
        """The memory that it takes, in bytes: all that is allocated, or on a CPU as far as it was ever written to."""
        if not _is_lazy(self.device):
            return self.num_bytes
        per_position = self._self_kv.nbytes // (self.max_rows * self.max_positions)  # of one row; of a slot of the cross cache as much
        lengths = map(max, self._rows_highest, [*self.row_lengths, *([0] * self.max_rows)])
        return per_position * (sum(lengths) + sum(self._slots_highest))

    def append(self, cross: Iterable[tuple[Tensor, Tensor]], source_lengths: Sequence[int], num_beams: Sequence[int]) -> None:
        """Add requests after those in the cache.

        Args:
            cross: each layer's keys and values of the new requests, ``[requests, heads, source, head_width]``.
            source_lengths: valid positions of each new request.
            num_beams: rows of each new request.

        Raises:
            ValueError: there are not enough free rows.
        """
        first_row, first_slot = self.num_rows, self.num_requests
        rows = slice(first_row, first_row + sum(num_beams))
        slots = slice(first_slot, first_slot + len(num_beams))
        if rows.stop > self.max_rows:
            raise ValueError(f"the cache has room for {self.max_rows} rows; {first_row} are taken and {sum(num_beams)} more were to come")
        source = max(source_lengths)
        written = max(source, *self._slots_written[slots])
        self._slots_highest[slots] = [max(source, highest) for highest in self._slots_highest[slots]]
        self._slots_written[slots] = [written] * len(num_beams)  # noted before anything is written: the writing may fail half-way
        for layer, (keys, values) in enumerate(cross):
            self._cross_kv[layer, 0, slots, :, :source] = keys[:, :, :source]
            self._cross_kv[layer, 1, slots, :, :source] = values[:, :, :source]
        # Earlier requests may have left NaN in positions that are masked now.
        self._cross_kv[:, :, slots, :, source:written] = 0
        self._slots_written[slots] = [source] * len(num_beams)
        self._self_kv[:, :, rows, : max(self._rows_written[rows])] = 0
        self._rows_written[rows] = [0] * sum(num_beams)
        self.num_beams += num_beams
        self.source_lengths += source_lengths
        self.row_lengths += [0] * sum(num_beams)
        self._slots += range(slots.start, slots.stop)
        self._plan = None

    def keep(self, requests: Sequence[int]) -> None:
        """Remove all other requests; ``requests`` are ascending indices, and those that stay keep their order."""
        if len(requests) == self.num_requests:
            return
        first_rows = _first_rows(self.num_beams)
        rows = [row for request in requests for row in range(first_rows[request], first_rows[request] + self.num_beams[request])]
        self._note_written(self.row_lengths)
        for target, row in enumerate(rows):
            _move(self._self_kv.transpose(3, 4), self._rows_written, row, target)
        slots = [self._slots[request] for request in requests]
        holes = sorted(set(range(len(slots))) - set(slots))
        for index, slot in enumerate(slots):
            if slot >= len(slots):  # only slots beyond the end are moved: prompts are by far the larger part of the cache
                slots[index] = holes.pop()
                _move(self._cross_kv, self._slots_written, slot, slots[index])
        self._slots = slots
        self.num_beams = [self.num_beams[request] for request in requests]
        self.row_lengths = [self.row_lengths[row] for row in rows]
        self.source_lengths = [self.source_lengths[request] for request in requests]
        self._plan = None

    def reorder(self, parents: Sequence[int]) -> None:
        """Replace the history of row ``i`` by that of row ``parents[i]``, which belongs to the same request."""
        moved = [row for row, parent in enumerate(parents) if row != parent]
        if not moved:
            return
        target = torch.tensor(moved, device=self.device)
        source = torch.tensor([parents[row] for row in moved], device=self.device)
        filled = self._self_kv[:, :, :, : max(self.row_lengths)]
        filled[:, :, target] = filled[:, :, source]

    def begin_step(self) -> Step:
        """The next step's view of the cache, with room for one more position in every row."""
        if self._plan is None:
            self._plan = self._make_plan()
        plan = self._plan
        size = StepSize(self.num_rows, self.num_requests, plan.beams, max(self.row_lengths) + 1, plan.cross_key_lengths.num_keys)
        key_lengths = KeyLengths(plan.lengths, size.length, is_full=not plan.is_ragged)
        rows = plan.rows if plan.is_ragged else None
        return self._view(size, plan.positions, key_lengths, plan.cross_key_lengths, plan.permutation, rows, plan.groups)

    def numbers(self, size: StepSize) -> StepNumbers:
        """What the next step is told in tensors, of a size that is at least ``needed_size``.

        Rows and slots beyond the requests' are computed too, with one valid position: a softmax over none would be NaN.
        """
        more = [0] * (size.rows - self.num_rows)
        positions = [*self.row_lengths, *more]
        sources = [1] * size.requests
        for slot, length in zip(self._slots, self.source_lengths, strict=True):
            sources[slot] = length
        queries = [slot * size.beams + beam for slot, count in zip(self._slots, self.num_beams, strict=True) for beam in range(count)]
        order = None
        if queries != list(range(self.num_rows)) or size.rows != size.requests * size.beams:
            row_of_query = [0] * (size.requests * size.beams)
            for row, query in enumerate(queries):
                row_of_query[query] = row
            order = queries + more, row_of_query
        return StepNumbers(positions, [position + 1 for position in positions], sources, order)

    def step_of(self, size: StepSize, tensors: StepTensors) -> Step:
        """A step of a size that is told its ``numbers`` in these tensors, which may be filled anew each time that it is computed."""
        key_lengths = KeyLengths(tensors.lengths, size.length, is_full=False)
        cross_key_lengths = KeyLengths(tensors.sources, size.source, is_full=False)
        rows = torch.arange(size.rows, device=self.device)
        return self._view(size, tensors.positions, key_lengths, cross_key_lengths, tensors.permutation, rows)

    def needed_size(self) -> StepSize:
        """The smallest size of the next step."""
        return StepSize(self.num_rows, self.num_requests, max(self.num_beams), max(self.row_lengths) + 1, max(self.source_lengths))

    def end_step(self) -> None:
        """Count the positions that the step has filled, one in each row."""
        self.row_lengths = [length + 1 for length in self.row_lengths]
        if self._plan is not None:
            self._plan.positions += 1
            self._plan.lengths += 1

    def rewind(self, row_lengths: Sequence[int]) -> None:
        """Go back to so many filled positions of each row, after a step that has failed at any point."""
        self._note_written([length + 1 for length in row_lengths])
        self.row_lengths = list(row_lengths)
        self._plan = None

    def clear(self) -> None:
        """Remove all requests. Also allowed after a step that failed before ``end_step``."""
        self._note_written([length + 1 for length in self.row_lengths])  # the step may have filled a position that was not counted
        self.keep([])

    def _view(self, size: StepSize, positions: Tensor, key_lengths: KeyLengths, cross_key_lengths: KeyLengths, *order: Any) -> Step:
        self_kv = self._self_kv[:, :, : size.rows, : size.length]
        cross_kv = self._cross_kv[:, :, : size.requests, :, : size.source]
        return Step(size, self_kv, cross_kv, positions, key_lengths, cross_key_lengths, *order)

    def _make_plan(self) -> _Plan:
        """What changes only when requests enter or leave."""
        beams, source = max(self.num_beams), max(self.source_lengths)
        sources, groups = [0] * self.num_requests, [(0, 0)] * self.num_requests
        firsts = _first_rows(self.num_beams)
        for slot, length, first, count in zip(self._slots, self.source_lengths, firsts, self.num_beams, strict=True):
            sources[slot], groups[slot] = length, (first, count)
        order = self.numbers(StepSize(self.num_rows, self.num_requests, beams, 0, source)).order
        positions = torch.tensor(self.row_lengths, device=self.device)
        return _Plan(
            beams=beams,
            positions=positions,
            lengths=(positions + 1).int(),
            is_ragged=len(set(self.row_lengths)) > 1,
            cross_key_lengths=KeyLengths.of(sources, source, self.device),
            permutation=QueryPermutation(*(torch.tensor(index, device=self.device) for index in order)) if order else None,
            rows=torch.arange(self.num_rows, device=self.device),
            groups=torch.tensor(groups, dtype=torch.int32) if self.device.type == "cpu" else None,
        )

    def _note_written(self, lengths: Sequence[int]) -> None:
        """Note that so many positions of each row may have been written to."""
        self._rows_written[: self.num_rows] = [max(pair) for pair in zip(self._rows_written, lengths, strict=False)]
        self._rows_highest = list(map(max, self._rows_highest, self._rows_written))


@dataclass
class _Plan:
    """What a cache computes again only when requests enter or leave; ``positions`` and ``lengths`` are advanced at every step."""

    beams: int
    positions: Int[Tensor, " rows"]
    lengths: Int[Tensor, " rows"]
    is_ragged: bool
    cross_key_lengths: KeyLengths
    permutation: QueryPermutation | None
    rows: Int[Tensor, " rows"]
    groups: Int[Tensor, "requests 2"] | None


def usable_positions(config: TextConfig, device: torch.device) -> int:
    """The number of positions that prompts and answers can have on a device.

    All positions of the model if memory becomes resident only when it is used. On Windows and on GPUs all memory is taken at once.
    """
    positions = config.max_position_embeddings
    return positions if _is_lazy(device) else min(positions, DEVICE_POSITIONS)


def _is_lazy(device: torch.device) -> bool:
    """Whether memory becomes resident only when it is written to."""
    return device.type == "cpu" and hasattr(mmap, "MAP_PRIVATE")


# Private pages, for which the system reserves no memory in advance.
_PRIVATE: dict[str, Any] = {}
if hasattr(mmap, "MAP_PRIVATE"):
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)}


def _zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU in pages that become resident when they are first written to, and are not huge pages."""
    if device.type != "cpu":
        return torch.zeros(*shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, **_PRIVATE)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


def _move(tensors: Tensor, written: list[int], source: int, target: int) -> None:
    """Copy index ``source`` to index ``target`` of the third dimension, as far as either has been written to."""
    if source == target:
        return
    length = max(written[source], written[target])
    tensors[:, :, target, :, :length] = tensors[:, :, source, :, :length]
    written[target] = written[source]


def _first_rows(num_beams: Sequence[int]) -> list[int]:
    """The index of each request's first row."""
    starts, row = [], 0
    for count in num_beams:
        starts.append(row)
        row += count
    return starts
