"""The keys of a database as a running server knows them: all in memory, so that checking one waits for nothing.

A thread looks every second whether keys have changed; a key that is not known makes it look at once. While the database does not answer,
known keys go on working for a time, and unknown ones are told to come back. In: keys as they were sent. Out: whose they are.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from florence2.server.accounts.given_keys import digest
from florence2.server.accounts.key_info import KeyInfo
from florence2.server.accounts.store import MARK, PREFIX_CHARS, KeyStore, Secret
from florence2.server.errors import KeysUnavailable

logger = logging.getLogger(__name__)

POLL_S = 1.0
LOOK_S = 5.0  # a database that has taken longer does not answer, whether or not it ever says so
LOG_EVERY_S = 60.0
_WAITING = "keys can't be looked up at present; send the request again in a moment"


class StoredKeys:
    """The keys of a database.

    Args:
        store: reads them.
        outage_s: how long known keys work on while the database does not answer.

    Raises:
        KeysUnavailable: the database does not answer at the start.
    """

    def __init__(self, store: KeyStore, outage_s: float) -> None:
        self._store = store
        self._outage_s = outage_s
        self._revision, self._secrets = store.all_secrets()
        self._read_at = time.monotonic()
        self._is_down = False
        self._logged_at = -LOG_EVERY_S
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="florence2-keys")
        self._looking: Future[None] | None = None
        self._polling: asyncio.Task[None] | None = None

    @property
    def known(self) -> list[KeyInfo]:
        """All keys that work, as far as is known."""
        return list({secret.info.name: secret.info for secret in self._secrets.values()}.values())

    def start(self) -> None:
        """Begin to look for changes, in the running event loop."""
        self._polling = asyncio.ensure_future(self._poll())

    async def close(self) -> None:
        """End looking, once a look that has begun is over."""
        if self._polling is not None:
            self._polling.cancel()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def find(self, key: str) -> KeyInfo | None:
        """Whose key it is; None: nobody's.

        Raises:
            KeysUnavailable: it is not known, and the database does not answer; or has not for too long.
        """
        found = self._known(key)
        if found is None and key.startswith(MARK):  # it may have been made just now, perhaps on another machine
            if not self._is_down:
                await self._look()
            if self._is_down:
                raise KeysUnavailable(_WAITING)
            found = self._known(key)
        if self._is_down and time.monotonic() - self._read_at > self._outage_s:
            raise KeysUnavailable(_WAITING)
        return found

    def _known(self, key: str) -> KeyInfo | None:
        secret: Secret | None = self._secrets.get(key[:PREFIX_CHARS])
        if secret is None or not hmac.compare_digest(secret.digest, digest(key)):
            return None
        return secret.info if secret.ends_at is None or time.time() < secret.ends_at else None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._look()

    async def _look(self) -> None:
        """Wait for a look at the database that begins from now on; all who wait share it."""
        if self._looking is None or self._looking.running() or self._looking.done():
            try:
                self._looking = self._thread.submit(self._refresh)
            except RuntimeError:  # the server has ended
                return
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._looking)), LOOK_S)
        except TimeoutError:
            self._note_outage("the database of keys hangs")

    def _refresh(self) -> None:
        """Read the keys if they have changed. Runs in the thread."""
        try:
            if self._store.revision() != self._revision:
                self._revision, self._secrets = self._store.all_secrets()
        except KeysUnavailable as error:
            self._note_outage(error.message)
            return
        if self._is_down:
            logger.warning("the database of keys answers again")
        self._read_at, self._is_down, self._logged_at = time.monotonic(), False, -LOG_EVERY_S

    def _note_outage(self, reason: str) -> None:
        self._is_down = True
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            logger.error("%s; keys that are known work on for %g s", reason, self._outage_s)
