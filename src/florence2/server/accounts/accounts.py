"""Keys, limits and usage of one server, put together around one database.

Several servers may share the database, and a Redis for rates; nothing here assumes to be alone. Knows no routes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from florence2.server.accounts.database import Database
from florence2.server.accounts.location import data_folder
from florence2.server.accounts.meter import Meter
from florence2.server.accounts.rate_limits import RateLimits
from florence2.server.accounts.store import KeyStore
from florence2.server.accounts.stored_keys import StoredKeys

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccountSettings:
    """What of a server's settings is about accounts.

    Attributes:
        database: the URL of the database.
        limits_url: where rates are counted; None: in this process.
        journal_folder: where journals of usage are; None: beside the database of SQLite, or with the user's data.
        outage_s: how long known keys work on while the database does not answer.
        counts_usage: whether usage is counted.
    """

    database: str
    limits_url: str | None = None
    journal_folder: Path | None = None
    outage_s: float = 3600.0
    counts_usage: bool = True


class Accounts:
    """The accounts of one server.

    Attributes:
        keys: the keys of the database.
        rates: how many requests they may send.
        meter: what they use; None: that is not counted.
        database: where it all is kept.

    Raises:
        KeysUnavailable: the database can't be reached.
        InvalidOption: a setting can't be, or a newer program has changed the database.
        MissingExtra: a package is not installed.
    """

    def __init__(self, settings: AccountSettings) -> None:
        self.database = Database(settings.database)
        self.database.open()
        self.keys = StoredKeys(KeyStore(self.database), settings.outage_s)
        self.rates = RateLimits(settings.limits_url)
        folder = journal_folder(self.database, settings.journal_folder)
        self.meter = Meter(self.database, folder, self._limited) if settings.counts_usage else None
        self.reading = ThreadPoolExecutor(2, thread_name_prefix="florence2-accounts")
        if self.meter is None and self._limited():
            logger.warning("usage is not counted (setting usage), so monthly quotas of keys do not hold")

    def start(self) -> None:
        """Begin what goes on beside requests, in the running event loop."""
        logger.info("requests need a key; the database %s has %d", self.database.name, len(self.keys.known))
        if not self.keys.known:
            logger.warning("the database %s has no key that works; florence2 keys create NAME makes one", self.database.name)
        self.keys.start()
        if self.meter is not None:
            self.meter.start()

    async def close(self) -> None:
        """Write what was noted, and end."""
        await self.keys.close()
        await asyncio.to_thread(self.reading.shutdown, wait=True, cancel_futures=True)
        if self.meter is not None:
            await asyncio.to_thread(self.meter.close)
        await self.rates.close()
        self.database.close()

    def _limited(self) -> Sequence[str]:
        return [key.name for key in self.keys.known if key.monthly_quota is not None]


def journal_folder(database: Database, given: Path | None) -> Path:
    """Where the journals are of all processes on this machine that use a database: a folder for each database."""
    if given is None and database.path is not None:
        return database.path.with_name(f"{database.path.name}-usage")
    return (given or data_folder() / "usage") / hashlib.sha256(database.name.encode()).hexdigest()[:16]
