"""The server's log: one line for each request and for what happens to models, as text or as JSON.

Lines carry path, status, time, model and the key's name, never a query, a body or a key; within a request also its id. They go to standard
error by way of ``log_writer``. Knows nothing of how.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from florence2.server.errors import shortened
from florence2.server.http.log_writer import QueuedHandler
from florence2.server.http.request_notes import ids

ACCESS = logging.getLogger("florence2.access")
FIELDS = "fields"  # the attribute of a record that holds its named values


MAX_PATH_CHARS = 200
MAX_MESSAGE_COLUMNS = 400
_SECRET = re.compile(r"[A-Za-z0-9_+=~]{20,}")  # so long without a sign in between are keys and images, and hardly a word or a name


def shown_path(path: str) -> str:
    """A path as it is logged: without what looks like a key, and without a query that was encoded as a part of it."""
    return shortened(_SECRET.sub("…", path.partition("?")[0]), MAX_PATH_CHARS)


class _Formatter(logging.Formatter):
    """What both forms have in common."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        """A traceback; the message of an error of others may repeat what it was given, so that it is shortened and looked through."""
        lines = "".join(traceback.format_exception(*ei)).splitlines()  # logging itself prints them, and Ray Serve has a print of its own
        return "\n".join(line if line.startswith(" ") else _without_secrets(line) for line in lines)


def _without_secrets(line: str) -> str:
    kind, colon, message = line.partition(":")
    return shortened(f"{kind}{colon}{_SECRET.sub('…', message)}", MAX_MESSAGE_COLUMNS)


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line.update({**ids(), **getattr(record, FIELDS, {})})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(_Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line, named values at its end, and its traceback below."""
        named = {**ids(), **getattr(record, FIELDS, {})}
        fields = " ".join(f"{name}={_on_one_line(value)}" for name, value in named.items() if value is not None)
        line, end, traceback = super().format(record).partition("\n")
        return f"{line} {fields}{end}{traceback}" if fields else f"{line}{end}{traceback}"


def _on_one_line(value: object) -> str:
    """A value as text in which nothing can pass for another value or another line."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)


def set_up(level: str, as_json: bool) -> None:
    """Send the log of this package and of uvicorn to standard error."""
    handler = QueuedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    for name in ("florence2", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    # Warnings of other libraries go through the same queue: written directly they would wait for the log's reader.
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
    # It would print queries, and with them keys.
    logging.getLogger("uvicorn.access").disabled = True
    # httpx2 logs each URL that it fetches, and a URL may hold a signature; so do the libraries below it.
    for name in ("httpx2", "httpcore2", "urllib3", "python_multipart", "multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)


def num_lines_dropped() -> int:
    """How many lines were lost since the start because nobody read the log."""
    return sum(handler.num_lost for handler in logging.getLogger("florence2").handlers if isinstance(handler, QueuedHandler))


def flush() -> None:
    """Wait until the log is written, for a limited time."""
    for handler in logging.getLogger("florence2").handlers:
        handler.flush()
