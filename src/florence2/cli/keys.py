"""``florence2 keys``: the keys of a database made, listed, revoked and rotated.

A key is shown once, when it is made. Out: lines for people, or JSON for programs. Imports nothing of the server before it runs.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence2.cli.options import one_of
from florence2.cli.tables import aligned
from florence2.console import json_line, notify, shown
from florence2.errors import InvalidOption, InvalidRequest
from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.server.accounts.database import Database
    from florence2.server.accounts.store import KeyStore, StoredKey

ACTIONS = ("create", "list", "revoke", "rotate")
# What each action takes besides its name.
_TAKEN = {"create": ("role", "model", "rate", "concurrency", "quota", "expires"), "rotate": ("grace",)}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MAX_SPAN_S = 100 * 366 * 86400
_SPAN = re.compile(r"(\d{1,9})([smhdw])")
_HEADER = ("NAME", "KEY", "ROLES", "LIMITS", "CREATED", "LAST USED", "STATE")

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="FLORENCE2_DATABASE",
        help="sqlite:////path/of/a/file.sqlite or postgresql://user:password@host/name. Default: a file with the user's data.",
    ),
]


def keys(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="create, list, revoke or rotate.", autocompletion=one_of(*ACTIONS))],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The key's name; not for list.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="infer (default), manage or metrics. May be repeated.", autocompletion=one_of("infer", "manage")),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", metavar="MODEL", help="A model that it may use; default: all. May be repeated.")
    ] = None,
    rate: Annotated[str | None, typer.Option(metavar="RATE", help="Most requests in a time, such as 60/minute.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Most images times prompts times beams under way at once.")] = None,
    quota: Annotated[int | None, typer.Option(help="Most images in a calendar month (UTC).")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends, from now: 12h, 90d, 52w. Default: never.")] = None,
    grace: Annotated[
        str | None, typer.Option(metavar="TIME", help="With rotate: how long the old key works on. Default: not at all.")
    ] = None,
    database: DatabaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an object, or one a line for list.")] = False,
) -> None:
    """Make, list, revoke or rotate the keys of a server."""
    given = {"role": role, "model": model, "rate": rate, "concurrency": concurrency, "quota": quota, "expires": expires, "grace": grace}
    _check_call(action, name, [option for option, value in given.items() if value is not None])
    with requires("keys", "florence2 keys"):
        from florence2.server.accounts.store import KeyStore
    found = database_at(database, is_made=action == "create")
    if found is None:
        if action != "list":
            raise InvalidOption(f"there is no key named {name!r}: there are none yet", field="name")
        _print_list([], as_json=as_json)
        return
    with found as opened:
        store = KeyStore(opened)
        if action == "list":
            _print_list(store.listed(), as_json=as_json)
        else:
            _change(store, action, name or "", given, as_json=as_json)


def database_at(url: str | None, *, is_made: bool = False) -> Database | None:
    """The database that a command means, not opened yet.

    Args:
        url: the one that was named; None: the one with the user's data.
        is_made: whether it may be made; a server that finds one lets nobody in without a key, so nothing that only looks makes one.

    Returns:
        None: nobody has made the one with the user's data.

    Raises:
        InvalidOption: the one that was named is not there.
    """
    from florence2.server.accounts.database import Database
    from florence2.server.accounts.location import default_database

    database = Database(url or default_database())
    if is_made or database.is_there:
        return database
    if url is not None:
        raise InvalidOption(f"there is no database {database.name}; florence2 keys create makes it", field="database")
    return None


def _change(store: KeyStore, action: str, name: str, given: dict[str, Any], *, as_json: bool) -> None:
    """Make, revoke or rotate one key, and print what came of it."""
    if action == "revoke":
        store.revoke(name)
        _print_done({"name": name, "revoked": True}, f"{name} is revoked; running servers refuse it within 5 seconds", as_json=as_json)
        return
    key = store.rotate(name, _seconds("grace", given["grace"]) or 0) if action == "rotate" else _create(store, name, given)
    if not as_json:
        notify(f"the key {name}, shown this once:")
    _print_done({"name": name, "key": key}, key, as_json=as_json)


def _create(store: KeyStore, name: str, given: dict[str, Any]) -> str:
    """A new key of these options."""
    from florence2.server.accounts.key_info import KeyInfo

    life_s = _seconds("expires", given["expires"])
    models = None if given["model"] is None else frozenset(given["model"])
    info = KeyInfo(name, frozenset(given["role"] or ["infer"]), models, given["concurrency"], given["rate"], given["quota"])
    return store.create(info, None if life_s is None else int(time.time()) + life_s)


def _check_call(action: str, name: str | None, options: list[str]) -> None:
    """Refuse an action that there is not, and what does not go with it."""
    if action not in ACTIONS:
        raise InvalidRequest(f"keys are for {', '.join(ACTIONS)}, got {action!r}; see florence2 keys --help")
    if (name is None) != (action == "list"):
        raise InvalidRequest(f"florence2 keys {action} takes {'no name' if action == 'list' else 'the name of a key'}")
    for option in options:
        if option not in _TAKEN.get(action, ()):
            actions = [one for one, taken in _TAKEN.items() if option in taken]
            raise InvalidOption(f"--{option} goes with {actions[0]}, not with {action}", field=option)


def _seconds(option: str, span: str | None) -> int | None:
    """A time such as 90d in seconds."""
    if span is None:
        return None
    found = _SPAN.fullmatch(span.strip().lower())
    seconds = int(found[1]) * _UNITS[found[2]] if found is not None else 0
    if not 0 < seconds <= _MAX_SPAN_S:
        raise InvalidOption(f"--{option} is a time such as 30m, 12h, 90d or 52w, at most 100 years, got {span!r}", field=option)
    return seconds


def _print_done(values: dict[str, Any], line: str, *, as_json: bool) -> None:
    print(json_line(values) if as_json else line, flush=True)


def _print_list(stored: list[StoredKey], *, as_json: bool) -> None:
    if as_json:
        for one in stored:
            print(json_line(_as_json(one)), flush=True)
    elif not stored:
        print("there are no keys; florence2 keys create NAME makes one", flush=True)
    else:
        for line in aligned([_HEADER, *(_row(one) for one in stored)]):
            print(shown(line), flush=True)


def _row(one: StoredKey) -> tuple[str, ...]:
    info = one.info
    limits = [f"{info.rate}" if info.rate else "", f"{info.max_slots} at once" if info.max_slots else ""]
    limits += [f"{info.monthly_quota} a month" if info.monthly_quota else "", ", ".join(sorted(info.models or ()))]
    beginnings = ", ".join(f"{prefix}…" for prefix in one.prefixes)
    times = (_day(one.created_at), _day(one.last_used_at) or "never")
    return info.name, beginnings, ",".join(sorted(info.roles)), "; ".join(filter(None, limits)) or "none", *times, _state(one)


def _state(one: StoredKey) -> str:
    if one.revoked_at is not None:
        return f"revoked {_day(one.revoked_at)}"
    if one.expires_at is None:
        return "works"
    return f"{'expired' if one.expires_at <= time.time() else 'works until'} {_day(one.expires_at)}"


def _day(at: int | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def _as_json(one: StoredKey) -> dict[str, Any]:
    info = one.info
    times = {name: getattr(one, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "name": info.name,
        "prefixes": list(one.prefixes),
        "roles": sorted(info.roles),
        "models": None if info.models is None else sorted(info.models),
        "rate": info.rate,
        "concurrency": info.max_slots,
        "quota": info.monthly_quota,
        **{name: None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items()},
    }
