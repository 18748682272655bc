"""Sums of usage in the database: batches added to them, each exactly once, and read by key, model, day or month. All of it blocks.

In: ``Totals``. Out: rows. Knows nothing of journals and requests.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from florence2.server.accounts.database import Database
from florence2.server.accounts.tables import keys, usage, usage_batches, usage_errors
from florence2.server.accounts.totals import NAMES, Totals

By = Literal["day", "month", "model", "key"]
GROUPINGS: tuple[By, ...] = get_args(By)


@dataclass
class UsageRow:
    """What a key used of a model in a time.

    Attributes:
        key: the name of the key.
        model: the model; "" for requests that were refused before theirs was known; None: all together.
        time: a day or a month, as ``2026-11-26`` or ``2026-11``; None: all together.
        requests: those of which an image at least was answered.
        images: images answered.
        prompt_tokens: tokens of prompts and images.
        answer_tokens: tokens generated.
        compute_s: seconds of the engine.
        errors: how often each error was the answer, by its code.
    """

    key: str
    model: str | None
    time: str | None
    requests: int = 0
    images: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    compute_s: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


def add_batch(database: Database, batch_id: str, totals: Totals, gone: Iterable[str] = ()) -> bool:
    """Add a batch to the sums, unless that was done.

    Args:
        database: where the sums are.
        batch_id: of this batch and no other.
        totals: what it adds.
        gone: batches that can't come again; their ids are forgotten.

    Returns:
        Whether it was added now.

    Raises:
        KeysUnavailable: the database does not answer; the batch may have been added or not.
    """
    with database.writing() as connection:
        insert = sqlite.insert if database.is_sqlite else postgresql.insert
        new = insert(usage_batches).values(id=batch_id, written_at=int(time.time())).on_conflict_do_nothing()
        if connection.execute(new.returning(usage_batches.c.id)).first() is None:
            return False
        if forgotten := list(gone):
            connection.execute(delete(usage_batches).where(usage_batches.c.id.in_(forgotten)))
        # In one order everywhere, so that two servers never wait for each other.
        rows = [(*place, *sums) for place, sums in sorted(totals.usage.items())]
        _add(connection, insert, usage, ("key_name", "model", "day"), NAMES, rows)
        rows = [(*place, count) for place, count in sorted(totals.errors.items())]
        _add(connection, insert, usage_errors, ("key_name", "model", "day", "code"), ("errors",), rows)
        for name, at in sorted(totals.last_used.items()):
            is_older = keys.c.last_used_at.is_(None) | (keys.c.last_used_at < at)
            connection.execute(update(keys).where(keys.c.name == name, is_older).values(last_used_at=at))
    return True


def _add(connection: Connection, insert: Any, table: Table, places: Sequence[str], sums: Sequence[str], rows: list[Any]) -> None:
    if not rows:
        return
    new = insert(table)
    added = new.on_conflict_do_update(index_elements=places, set_={name: table.c[name] + new.excluded[name] for name in sums})
    connection.execute(added, [dict(zip((*places, *sums), row, strict=True)) for row in rows])


def read_usage(
    database: Database, *, key: str | None = None, since: datetime.date | None = None, until: datetime.date | None = None, by: By = "day"
) -> list[UsageRow]:
    """What was used, in the order of keys, times and models.

    Args:
        database: where the sums are.
        key: of this key only; None: of all.
        since: from this day on; None: from the first one.
        until: to this day, which counts; None: to the last one.
        by: a row for each key, and for each of its days and models, months and models, models, or nothing more.
    """
    found: dict[tuple[str, str, str], UsageRow] = {}

    def row_of(name: str, model: str, day: datetime.date) -> UsageRow:
        moment = day.isoformat() if by == "day" else day.isoformat()[:7] if by == "month" else None
        kind = None if by == "key" else model
        return found.setdefault((name, moment or "", kind or ""), UsageRow(name, kind, moment))

    with database.reading() as connection:
        for one in connection.execute(_within(usage, key, since, until)):
            row = row_of(one.key_name, one.model, one.day)
            for name in NAMES:
                setattr(row, name, getattr(row, name) + getattr(one, name))
        for one in connection.execute(_within(usage_errors, key, since, until)):
            errors = row_of(one.key_name, one.model, one.day).errors
            errors[one.code] = errors.get(one.code, 0) + one.errors
    return [found[place] for place in sorted(found)]


def images_this_month(database: Database, names: Sequence[str]) -> dict[str, int]:
    """How many images each of these keys was answered in this month (UTC), as far as it is written."""
    first = datetime.datetime.now(datetime.UTC).date().replace(day=1)
    of_them = usage.c.key_name.in_(names)
    query = select(usage.c.key_name, func.sum(usage.c.images)).where(of_them, usage.c.day >= first).group_by(usage.c.key_name)
    with database.reading() as connection:
        return {name: int(count) for name, count in connection.execute(query)}


def _within(table: Table, key: str | None, since: datetime.date | None, until: datetime.date | None) -> Any:
    query = select(table)
    if key is not None:
        query = query.where(table.c.key_name == key)
    if since is not None:
        query = query.where(table.c.day >= since)
    return query if until is None else query.where(table.c.day <= until)
