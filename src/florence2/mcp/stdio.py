"""The protocol over standard input and output, and the end of the process.

Standard output belongs to the protocol: whatever else is printed while it is served goes to standard error. The end of input, SIGTERM,
Ctrl-C and a host that no longer reads end the process in order. In: a server of the protocol. Knows nothing of tools.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mcp.server.stdio import stdio_server

from florence2.mcp.model import AnsweringModel

if TYPE_CHECKING:
    from anyio import AsyncFile
    from mcp.server.lowlevel import Server

MAX_LINE_BYTES = 64 * 2**20
MAX_END_BYTES = 2**16
END_S = 3.0


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one host until it closes its end, or a signal ends the process."""
    with suppress(asyncio.CancelledError):
        end_on_signals(asyncio.current_task())
        try:
            with _own_input() as wire:
                stdin = cast("AsyncFile[str]", Lines(wire))
                async with stdio_server(stdin=stdin) as (incoming, outgoing):
                    await server.run(incoming, outgoing, server.create_initialization_options())
        except* (BrokenPipeError, ConnectionError):  # the host no longer reads
            pass


def end_on_signals(task: asyncio.Task[Any] | None) -> None:
    """Have SIGTERM and Ctrl-C cancel a task; the process ends within ``END_S``, whatever hangs."""

    def end() -> None:
        if task is not None:
            task.cancel()
        clock = threading.Timer(END_S, leave_at_once)
        clock.daemon = True
        clock.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows, where Ctrl-C raises KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, end)


def leave(model: AnsweringModel) -> None:
    """End the model. A load that is under way can't be ended: then the process is, before its interpreter is taken apart."""
    if not model.close():
        leave_at_once()


def leave_at_once() -> None:
    """End the process without waiting for threads."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


@contextmanager
def _own_input() -> Iterator[BinaryIO]:
    """Standard input for this process alone: whatever else reads it, such as a child, finds it empty."""
    try:
        number = sys.stdin.fileno()
        wire, nothing = os.dup(number), os.open(os.devnull, os.O_RDONLY)
    except (OSError, ValueError):  # a stream of a test, without a file
        yield sys.stdin.buffer
        return
    os.dup2(nothing, number)
    os.close(nothing)
    yield os.fdopen(wire, "rb", closefd=False)  # the thread may still read it


class Lines:
    """Lines of a stream, read in a daemon thread, so that nobody has to wait for the next one when the process is to end.

    Args:
        stream: what is read, as UTF-8. A line of more than ``MAX_LINE_BYTES`` loses its middle: that is of the image which makes it so
            long, and for whose size the call is then refused. The call's id is at one of the ends.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(stream,), name="florence2-mcp-input", daemon=True).start()

    def __aiter__(self) -> Lines:
        """The lines, in their order."""
        return self

    async def __anext__(self) -> str:
        """The next line."""
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        return line

    def _read(self, stream: BinaryIO) -> None:
        with suppress(OSError, ValueError, RuntimeError):  # the stream or the loop was closed
            while line := stream.readline(MAX_LINE_BYTES):
                end = b""
                while not (end or line).endswith(b"\n") and (rest := stream.readline(MAX_END_BYTES)):
                    end = (end + rest)[-MAX_END_BYTES:]
                self._put((line + end).decode("utf-8", "replace"))
        with suppress(RuntimeError):
            self._put(None)

    def _put(self, line: str | None) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
