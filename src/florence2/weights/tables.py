"""The token tables of a checkpoint, and the changes that an adapter makes to them.

In: tensors by our names and an adapter's changes of tables. Out: the tables that the model reads: the shared one (prompts), and those
of the decoder and the head if they differ from it. Published checkpoints tie all of them. As in PEFT, a copy that was trained replaces
its own table only, and a table that the adapter's file stores directly replaces all that are tied to it.
Source: PEFT 0.21 on the reference; compared with it for every combination of tables. Knows nothing of files or models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from florence2.errors import CheckpointError
from florence2.weights.names import DECODER_TABLE, EMBEDDINGS, HEAD, SHARED
from florence2.weights.tensors import StoredTensor

TABLES = (SHARED, DECODER_TABLE, HEAD)
"""The tables that the model reads. The encoder's own table is never read: prompts are embedded with the shared one."""
ALL_TABLES = frozenset((*EMBEDDINGS, HEAD))
# A table with fewer rows, by less than this, lacks only padding.
PADDED_TO = 64

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenRows:
    """Single rows of a table that an adapter trained: ``values[i]`` is the row of the token ``ids[i]``."""

    ids: tuple[int, ...]
    values: StoredTensor

    def __call__(self, table: Tensor) -> Tensor:
        """The table with these rows."""
        table = table.clone()
        table[torch.tensor(self.ids)] = self.values.read(table.dtype)
        return table


@dataclass(frozen=True)
class TableChanges:
    """The changes that one adapter makes to token tables, by the tables' names.

    Attributes:
        source: the adapter's folder, for messages.
        in_place: tables that replace a table of the base and all that are tied to it.
        copies: tables that replace one table of the base only.
        rows: trained rows of a table.
        updates: low-rank updates of a table, as functions of its values.
        num_rows: the number of rows of the table of each update.
    """

    source: str
    in_place: Mapping[str, StoredTensor]
    copies: Mapping[str, StoredTensor]
    rows: Mapping[str, TokenRows]
    updates: Mapping[str, Change]
    num_rows: Mapping[str, int]

    def applied_to(self, tensors: Mapping[str, StoredTensor], *, is_tied: bool = True) -> dict[str, StoredTensor]:
        """The tensors with these changes; tables that are equal afterwards are tied again.

        Args:
            tensors: the base's tensors, with tables of decoder and head only if they differ from the shared one.
            is_tied: the base's configuration ties the tables that do not differ.

        Raises:
            CheckpointError: the tables contradict each other or do not fit the base.
        """
        if not (self.in_place or self.copies or self.rows or self.updates):
            return dict(tensors)
        tied = [name for name in TABLES if name == SHARED or (is_tied and name not in tensors)]
        changed = dict(tensors)
        if not is_tied:
            changed.update({name: tensors.get(name, tensors[SHARED]) for name in TABLES})
        changed.update(self._in_place(tied))
        for name in TABLES:
            changed.setdefault(name, changed[SHARED])
        changed.update({name: table for name, table in self.copies.items() if name in TABLES})
        changed = {name: table for name, table in changed.items() if name in TABLES or name not in ALL_TABLES}
        rows = self._rows(tied)
        num_rows = self._num_rows(changed, rows)
        for name in TABLES:
            changed[name] = self._resized(name, changed[name], num_rows, rows.get(name))
            for change in (rows.get(name), self.updates.get(name)):
                if change is not None:
                    changed[name] = _computed(changed[name], change)
        return tied_where_equal(changed)

    def _in_place(self, tied: list[str]) -> dict[str, StoredTensor]:
        """The tables of the base that are replaced, with their replacements."""
        written: dict[str, StoredTensor] = {}
        for name, table in self.in_place.items():
            # The encoder's table counts as tied if any table is.
            target = SHARED if name in tied or (name not in TABLES and len(tied) > 1) else name
            if target in written and not equal(written[target], table):
                raise CheckpointError(
                    f"{self.source}: {written[target].name} and {table.name} differ, and both replace the one table of its base. "
                    "If they were trained apart, adapter_config.json must list them in modules_to_save."
                )
            written[target] = table
        return written

    def _rows(self, tied: list[str]) -> dict[str, TokenRows]:
        """The trained rows of each table that the model reads; rows of the shared table count for all that are tied to it, as in PEFT."""
        if not self.rows:
            return {}
        if self.in_place or self.copies or self.updates or (SHARED in self.rows and len(self.rows) > 1):
            raise rows_beside_others(self.source)
        if SHARED in self.rows:
            return dict.fromkeys(tied, self.rows[SHARED])
        return {name: rows for name, rows in self.rows.items() if name in TABLES}

    def _num_rows(self, tables: Mapping[str, StoredTensor], rows: Mapping[str, TokenRows]) -> int:
        """The number of rows of the adapter's tables; that of the base if the adapter has none."""
        base, width = tables[SHARED].shape
        for table in (*self.in_place.values(), *self.copies.values(), *(entry.values for entry in rows.values())):
            if len(table.shape) != 2 or table.shape[1] != width:
                raise CheckpointError(
                    f"{table.path}: expected {table.name} to be {width} wide like the base's tables, got {list(table.shape)}."
                )
        said = {table.shape[0] for table in (*self.in_place.values(), *self.copies.values())} | set(self.num_rows.values())
        said |= {max(entry.ids) + 1 for entry in rows.values() if max(entry.ids) >= base}
        if len(said) > 1:
            raise CheckpointError(f"{self.source}: its token tables have different numbers of rows: {', '.join(map(str, sorted(said)))}.")
        return said.pop() if said else base

    def _resized(self, name: str, table: StoredTensor, num_rows: int, rows: TokenRows | None) -> StoredTensor:
        """The table with ``num_rows`` rows: without padding, or with rows of zeros that the adapter's trained rows replace."""
        num_present, width = table.shape
        if num_rows == num_present:
            return table
        shape = (num_rows, width)
        if num_present - PADDED_TO < num_rows < num_present:
            return replace(table, shape=shape, location=None, read=lambda dtype: table.read(dtype)[:num_rows].contiguous())
        if num_rows < num_present:
            raise CheckpointError(f"{self.source}: its token tables have {num_rows} rows, those of its base {num_present}: another base.")
        new = range(num_present, num_rows)
        if rows is None or not set(new) <= set(rows.ids):
            raise CheckpointError(
                f"{self.source} was trained after {len(new)} token(s) were added: its token tables have {num_rows} rows, {name} of its "
                f"base has {num_present}, and the adapter does not bring the others. Give the model that was trained, saved whole, as "
                "the base, or merge the adapter with PEFT and load the merged checkpoint."
            )
        return _computed(replace(table, shape=shape), lambda values: torch.cat([values, values.new_zeros(len(new), width)]))


def rows_beside_others(source: str) -> CheckpointError:
    """The error for an adapter that trains rows of one table and something else of another."""
    return CheckpointError(
        f"{source}: trainable_token_indices together with other changes of token tables is not supported. "
        "Merge the adapter with PEFT and load the merged checkpoint."
    )


def _computed(table: StoredTensor, change: Change) -> StoredTensor:
    """The table with its values changed; computed in float32 when it is read."""
    return StoredTensor(table.name, table.shape, table.path, lambda dtype: change(table.read(torch.float32)).to(dtype))


def tied_where_equal(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors without tables of decoder and head that equal the shared one."""
    shared = tensors[SHARED]
    return {name: value for name, value in tensors.items() if name not in TABLES[1:] or not equal(value, shared)}


def equal(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether two tensors have the same values; they are not read if they have the same location."""
    if first is second or (first.location is not None and first.location == second.location):
        return True
    return first.shape == second.shape and torch.equal(first.read(torch.float32), second.read(torch.float32))
