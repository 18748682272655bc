"""The decoder's key/value cache, a value that the caller holds.

Rows (one per beam) stand in the order of their requests. A layer keeps the rows' own keys and values (self attention) and
one set per request of the encoded prompt's (cross attention), which the request's rows attend to together. Requests of
different lengths, beam counts and ages share it: they enter with ``admit`` and leave with ``keep``.

Knows shapes and positions; nothing of weights, tokens or search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

CAPACITY_STEP = 64  # positions added at a time when a row outgrows the cache


@dataclass
class LayerCache:
    """One decoder layer's tensors. Row tensors have room for more positions than are filled."""

    self_keys: Float[Tensor, "rows heads capacity head_width"]
    self_values: Float[Tensor, "rows heads capacity head_width"]
    cross_keys: Float[Tensor, "requests heads source head_width"]
    cross_values: Float[Tensor, "requests heads source head_width"]


class DecoderCache:
    """Keys and values of all running requests.

    Attributes:
        layers: one LayerCache for each decoder layer; empty before the first ``admit``.
        num_beams: how many rows each request has.
        row_lengths: how many positions of each row are filled.
        source_lengths: how many positions of each request's encoded prompt are valid.
    """

    def __init__(self) -> None:
        self.layers: list[LayerCache] = []
        self.num_beams: list[int] = []
        self.row_lengths: list[int] = []
        self.source_lengths: list[int] = []
        self.self_mask: Bool[Tensor, "rows 1 1 length"] | None = None
        self.cross_mask: Bool[Tensor, "requests 1 1 source"] | None = None
        self._is_prepared = False

    @property
    def num_requests(self) -> int:
        """How many requests are in the cache."""
        return len(self.num_beams)

    @property
    def num_rows(self) -> int:
        """How many rows are in the cache, over all requests."""
        return len(self.row_lengths)

    def append(self, cross: Sequence[tuple[Tensor, Tensor]], source_lengths: Sequence[int], num_beams: Sequence[int]) -> None:
        """Add requests behind those that are there.

        Args:
            cross: each layer's keys and values of the new requests, ``[requests, heads, source, head_width]``.
            source_lengths: valid positions of each new request.
            num_beams: rows of each new request.
        """
        new_rows = sum(num_beams)
        if not self.layers:
            self.layers = [_empty_layer(keys) for keys, _ in cross]
        for layer, (keys, values) in zip(self.layers, cross, strict=True):
            layer.cross_keys = _stack(layer.cross_keys, keys)
            layer.cross_values = _stack(layer.cross_values, values)
            layer.self_keys = F.pad(layer.self_keys, (0, 0, 0, 0, 0, 0, 0, new_rows))
            layer.self_values = F.pad(layer.self_values, (0, 0, 0, 0, 0, 0, 0, new_rows))
        self.num_beams += num_beams
        self.source_lengths += source_lengths
        self.row_lengths += [0] * new_rows
        self._is_prepared = False

    def keep(self, requests: Sequence[int]) -> None:
        """Drop every request that is not named; those that stay keep their order. Indices ascend."""
        if len(requests) == self.num_requests:
            return
        first_rows = _first_rows(self.num_beams)
        rows = [row for request in requests for row in range(first_rows[request], first_rows[request] + self.num_beams[request])]
        if not rows:
            self.__init__()
            return
        device = self.layers[0].self_keys.device
        row_index = torch.tensor(rows, device=device)
        request_index = torch.tensor(list(requests), device=device)
        self.num_beams = [self.num_beams[request] for request in requests]
        self.row_lengths = [self.row_lengths[row] for row in rows]
        self.source_lengths = [self.source_lengths[request] for request in requests]
        source = max(self.source_lengths)
        for layer in self.layers:
            layer.self_keys = layer.self_keys.index_select(0, row_index)
            layer.self_values = layer.self_values.index_select(0, row_index)
            layer.cross_keys = layer.cross_keys[:, :, :source].index_select(0, request_index)
            layer.cross_values = layer.cross_values[:, :, :source].index_select(0, request_index)
        self._is_prepared = False

    def reorder(self, parents: Sequence[int]) -> None:
        """Let row ``i`` continue the history of row ``parents[i]``, which belongs to the same request."""
        moved = [row for row, parent in enumerate(parents) if row != parent]
        if not moved:
            return
        device = self.layers[0].self_keys.device
        target = torch.tensor(moved, device=device)
        source = torch.tensor([parents[row] for row in moved], device=device)
        length = max(self.row_lengths)
        for layer in self.layers:
            for rows in (layer.self_keys, layer.self_values):
                rows[target, :, :length] = rows[source, :, :length]

    def begin_step(self) -> Int[Tensor, " rows"]:
        """Make room for one position a row, and say which position that is."""
        if not self._is_prepared:
            self._prepare()
        self._length = max(self.row_lengths) + 1
        if self._length > self.layers[0].self_keys.shape[2]:
            for layer in self.layers:
                layer.self_keys = F.pad(layer.self_keys, (0, 0, 0, CAPACITY_STEP))
                layer.self_values = F.pad(layer.self_values, (0, 0, 0, CAPACITY_STEP))
        if self._is_ragged:
            filled = torch.arange(self._length, device=self._positions.device) <= self._positions.unsqueeze(1)
            self.self_mask = filled[:, None, None, :]
        return self._positions

    def end_step(self) -> None:
        """Count the positions that the step has filled."""
        self.row_lengths = [length + 1 for length in self.row_lengths]
        self._positions = self._positions + 1

    def extend(self, layer: LayerCache, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one new position a row, ``[rows, heads, 1, head_width]``; gives the rows' keys and values so far."""
        if self._is_ragged:
            layer.self_keys[self._rows, :, self._positions] = keys.squeeze(2)
            layer.self_values[self._rows, :, self._positions] = values.squeeze(2)
        else:
            layer.self_keys[:, :, self._length - 1 : self._length] = keys
            layer.self_values[:, :, self._length - 1 : self._length] = values
        return layer.self_keys[:, :, : self._length], layer.self_values[:, :, : self._length]

    def group_rows(self, hidden: Float[Tensor, "rows 1 width"]) -> Float[Tensor, "requests beams width"]:
        """Rows as the queries of their request; a request with fewer beams than the widest is padded with zeros."""
        beams = max(self.num_beams)
        if self._place_of_row is None:
            return hidden.view(self.num_requests, beams, -1)
        grouped = hidden.new_zeros(self.num_requests * beams, hidden.shape[-1])
        grouped[self._place_of_row] = hidden.squeeze(1)
        return grouped.view(self.num_requests, beams, -1)

    def ungroup_rows(self, grouped: Float[Tensor, "requests beams width"]) -> Float[Tensor, "rows 1 width"]:
        """The inverse of ``group_rows``."""
        flat = grouped.reshape(-1, 1, grouped.shape[-1])
        return flat if self._place_of_row is None else flat[self._place_of_row]

    def _prepare(self) -> None:
        """Work out masks and places, which change only when requests enter or leave."""
        device = self.layers[0].self_keys.device
        beams = max(self.num_beams)
        self._positions = torch.tensor(self.row_lengths, device=device)
        self._is_ragged = len(set(self.row_lengths)) > 1
        self._rows = torch.arange(self.num_rows, device=device)
        self.self_mask = None
        source = max(self.source_lengths)
        lengths = torch.tensor(self.source_lengths, device=device)
        is_padded = min(self.source_lengths) < source
        self.cross_mask = (torch.arange(source, device=device) < lengths.unsqueeze(1))[:, None, None, :] if is_padded else None
        places = [request * beams + beam for request, count in enumerate(self.num_beams) for beam in range(count)]
        self._place_of_row = torch.tensor(places, device=device) if len(places) < self.num_requests * beams else None
        self._is_prepared = True


def _first_rows(num_beams: Sequence[int]) -> list[int]:
    """Where each request's rows begin."""
    starts, row = [], 0
    for count in num_beams:
        starts.append(row)
        row += count
    return starts


def _empty_layer(keys: Tensor) -> LayerCache:
    """A layer without rows or requests, of the same heads, width, type and device as ``keys``."""
    _, heads, source, width = keys.shape
    rows = keys.new_zeros(0, heads, CAPACITY_STEP, width)
    requests = keys.new_zeros(0, heads, source, width)
    return LayerCache(rows, rows.clone(), requests, requests.clone())


def _stack(old: Tensor, new: Tensor) -> Tensor:
    """Requests of different source lengths in one tensor, the shorter ones padded."""
    if not old.shape[0]:
        return new.contiguous()
    source = max(old.shape[2], new.shape[2])
    return torch.cat([F.pad(part, (0, 0, 0, source - part.shape[2])) for part in (old, new)])
