"""The route of usage: what the calling key used, and for keys that manage, what any used."""

from __future__ import annotations

import asyncio
import datetime
import logging
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from florence2.server.errors import KeysUnavailable, NotOffered
from florence2.server.http.auth import require_role
from florence2.server.http.state import state_of

logger = logging.getLogger(__name__)

USAGE_PATH = "/usage"

router = APIRouter(tags=["server"])


@router.get(USAGE_PATH)
async def usage(
    request: Request,
    key: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9._@+-]*$", description="The name of a key; all: every key. For keys with the role manage.")
    ] = None,
    since: Annotated[datetime.date | None, Query(description="From this day on (UTC). Default: the first of this month.")] = None,
    until: Annotated[datetime.date | None, Query(description="To this day, which counts.")] = None,
    by: Annotated[Literal["day", "month", "model", "key"], Query(description="A row for each of these, and each model.")] = "day",
) -> dict[str, Any]:
    """What a key has used: requests, images, tokens, seconds of the engine, errors."""
    accounts, own = state_of(request).accounts, request.scope["state"]["key"]
    if accounts is None or accounts.meter is None:
        raise NotOffered("usage is not counted here: it needs a database of keys (settings database and usage)")
    wanted = own.name if key is None else key
    if wanted == "all" or wanted != own.name:
        require_role(request, "manage")
    first = since or datetime.datetime.now(datetime.UTC).date().replace(day=1)

    def read() -> list[dict[str, Any]]:
        from florence2.server.accounts.usage import read_usage  # where there is a database, its packages are there

        assert accounts.meter is not None
        accounts.meter.flush()
        name = None if wanted == "all" else wanted
        return [asdict(row) for row in read_usage(accounts.database, key=name, since=first, until=until, by=by)]

    try:
        rows = await asyncio.get_running_loop().run_in_executor(accounts.reading, read)
    except KeysUnavailable as error:  # where the database is, and why it does not answer, is for whoever runs the server
        logger.error("usage can't be read: %s", error.message)
        raise KeysUnavailable("usage can't be looked up at present; send the request again in a moment") from None
    quota = own.monthly_quota if wanted == own.name else None
    span = {"since": first.isoformat(), "until": until and until.isoformat()}
    return {"key": wanted, **span, "by": by, "monthly_quota": quota, "usage": rows}
