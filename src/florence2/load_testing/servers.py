"""What answers at an address: which form of requests it takes, which model it has, and whether it answers at all.

In: an address and a key. Out: a ``Server``, or an error that says what was found instead. One request, the probe, is sent before a test
begins, so that nobody waits for a minute to read that the key was wrong. Knows nothing of loads.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from florence2.certificates import certificate_hint
from florence2.errors import Florence2Error, InvalidOption
from florence2.load_testing.connections import Connections
from florence2.load_testing.measurement import Measurement
from florence2.load_testing.options import Load
from florence2.load_testing.running import Runner

APIS = ("auto", "lmm", "openai")
_ASK_S = 10.0
_NUM_PROBES = 3
_SHORT_WAIT_S, _LONGEST_WAIT_S = 0.2, 10.0
_LOOK_S = 0.1  # how often it is looked whether a user wants the end
_NO_ENTRY = frozenset({401, 403})
_HOPELESS = range(400, 500)  # the same request fails in the same way again


class NothingToMeasure(Florence2Error):
    """A server that is not there, or answers no request of the test."""

    code = "nothing_to_measure"
    status = 502


@dataclass(frozen=True)
class Server:
    """What answers at an address.

    Attributes:
        api: ``lmm`` or ``openai``.
        model: the model's id.
        name: what it says that it is, with its version; empty where it does not say.
        is_ours: whether it is this project's.
    """

    api: str
    model: str
    name: str
    is_ours: bool


async def look_at(url: str, api: str, model: str | None, headers: Mapping[str, str]) -> Server:
    """What answers at an address.

    Args:
        url: the server's.
        api: ``lmm``, ``openai``, or ``auto``.
        model: its id; None for the first that the server names.
        headers: of each request; the key among them.

    Raises:
        NothingToMeasure: nothing answers, or a key is wanted.
        InvalidOption: it is neither kind of server, or names no model.
    """
    connections, refusals = Connections(url), set[int]()
    try:
        info = await _asked(connections, f"{url}/info", headers, refusals)
        models = await _asked(connections, f"{url}/v1/models", headers, refusals)
        name = " ".join(str(info[key]) for key in ("name", "version") if info.get(key))
        is_ours = "florence2" in str(info.get("name", "")).lower()
        listed = _ids(models.get("data"), "id")
        if api == "auto":
            api = "lmm" if info.get("name") else "openai" if listed else ""
        if not api:
            _check_entry(url, headers, refusals)
            raise InvalidOption(
                f"{url} answers neither /info nor /v1/models as such servers do; say --api lmm or --api openai, or correct the address",
                field="api",
            )
        if model is None and api == "lmm":
            registry = await _asked(connections, f"{url}/model/registry", headers, refusals)
            listed = _ids(registry.get("models"), "model_id") or listed
        if model is None and not listed:
            _check_entry(url, headers, refusals)
            raise InvalidOption(f"--model is missing, and {url} does not say which it has", field="model")
        return Server(api, model or listed[0], name, is_ours)
    finally:
        await connections.close()


async def probe(runner: Runner) -> None:
    """Ask a first question, whose answer tells whether there is something to measure.

    A server that says "later" is asked again when it says, and one that fails a few times.

    Args:
        runner: sends one request in a run.

    Raises:
        NothingToMeasure: there is no answer; the message says what there is.
    """
    last: Measurement | None = None
    for _ in range(_NUM_PROBES):
        (last,) = (await runner.run(Load("concurrency", 1))).measurements
        if last.outcome == "answered" or runner.is_to_stop():
            return
        if last.outcome == "failed" and last.status in _HOPELESS:
            break
        until_s = time.monotonic() + min(last.retry_after_s or _SHORT_WAIT_S, _LONGEST_WAIT_S)
        while time.monotonic() < until_s and not runner.is_to_stop():
            await asyncio.sleep(_LOOK_S)
    assert last is not None
    said = f": {last.message}" if last.message else ""
    answered = f"with {last.error}" if last.status is not None and str(last.status) == last.error else f"by nothing ({last.error})"
    raise NothingToMeasure(f"the first request, {last.name}, was answered {answered}, so there is nothing to measure{said}")


async def _asked(connections: Connections, url: str, headers: Mapping[str, str], refusals: set[int]) -> dict[str, Any]:
    """The JSON object at an address; an empty one where there is something else. Refusals for want of a key are added to ``refusals``.

    Raises:
        NothingToMeasure: there is no answer.
    """
    try:
        async with asyncio.timeout(_ASK_S), connections.send(httpx2.Request("GET", url, headers=dict(headers))) as response:
            content = await response.aread()
    except TimeoutError:
        raise NothingToMeasure(f"{url} does not answer within {_ASK_S:g} s") from None
    except (httpx2.HTTPError, OSError) as error:
        hint = certificate_hint(error)
        raise NothingToMeasure(f"{url} can't be reached: {error or type(error).__name__}{'; ' + hint if hint else ''}") from None
    refusals |= {response.status_code} & _NO_ENTRY
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and response.status_code == 200 else {}


def _check_entry(url: str, headers: Mapping[str, str], refusals: set[int]) -> None:
    """Say that it is the key that is missing, or wrong, where the server has said so."""
    if not refusals:
        return
    if any(name.lower() == "authorization" for name in headers):
        raise NothingToMeasure(f"{url} does not take this key ({max(refusals)}): see FLORENCE2_API_KEY and --api-key")
    raise NothingToMeasure(f"{url} wants a key ({max(refusals)}): set FLORENCE2_API_KEY, or give --api-key")


def _ids(entries: Any, name: str) -> list[str]:
    return [str(one[name]) for one in entries if isinstance(one, dict) and one.get(name)] if isinstance(entries, list) else []
