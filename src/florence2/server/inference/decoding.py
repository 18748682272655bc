"""Decoding of costly images, in processes that can be ended.

A decoder of Pillow can't be stopped, and some hold the interpreter's lock while they run. So an image whose structure does not show that it
is cheap is decoded in a process that has loaded Pillow and NumPy alone. Such a process is reused, and ended when an image takes too long or
its caller stops waiting. In: a ``Structure``. Out: an RGB image. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from florence2.errors import Florence2Error, InvalidImage, OutOfMemory
from florence2.image_files import Structure
from florence2.server.errors import Draining, ImageTooLarge
from florence2.server.inference.decoder_process import NAME, message_head, read_message, write_all
from florence2.server.settings import Settings

# Work that takes at most a tenth of a second, in decoders that release the interpreter's lock.
CHEAP_WORK = {"JPEG": 2**24, "PNG": 2**21}
CHEAP_BYTES = 2**23
# The address space that Python and its libraries need, and what a decoder may need for each pixel.
BASE_BYTES = 768 * 2**20
BYTES_PER_PIXEL = 24
# The clock on the wall allows more than the processor time: a process on a busy machine gets little of a processor.
WALL_FACTOR, WALL_GRACE_S = 2.0, 5.0
EXIT_S = 5.0
# A process that has decoded nothing for so long is ended: it holds 150 MB, and takes a tenth of a second to start.
IDLE_S = 30.0
# The process gets these variables alone: no setting and no key of the server.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "PYTHONHOME", "VIRTUAL_ENV", "TMPDIR", "TEMP")


def is_cheap(structure: Structure) -> bool:
    """Whether a picture may be decoded in the server's own process."""
    return structure.is_plain and structure.work <= CHEAP_WORK.get(structure.format, 0) and len(structure.data) <= CHEAP_BYTES


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse too large an image.

    Raises:
        ImageTooLarge: more than ``max_pixels``.
    """
    width, height = size
    if width * height > max_pixels:
        found = f"It has {width} x {height} = {width * height}."
        raise ImageTooLarge(f"The image has more than {max_pixels} pixels. {found} Scale it down first.", field="image")


class Decoders:
    """The processes of one server; each is started when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A thread waits for each process. Small images have threads of their own, so that they never wait for large ones.
        self._pool = ThreadPoolExecutor(settings.image_processes, thread_name_prefix="florence2-decode")
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    async def decode(self, structure: Structure, *, auto_orient: bool) -> Image.Image:
        """The image in RGB; cancelling the call ends the decoding.

        Raises:
            InvalidImage: it is damaged.
            ImageTooLarge: more pixels than are taken, or more time than is given.
            OutOfMemory: it needs more memory than there is.
            Draining: the server ends.
        """
        job = _Job()
        try:
            return await asyncio.wrap_future(self._pool.submit(self._run, job, structure, auto_orient))
        except asyncio.CancelledError:
            job.cancel()
            raise
        except RuntimeError as error:  # what a pool raises that is shut down
            raise Draining from error

    def end_idle(self, idle_s: float = IDLE_S) -> None:
        """End the processes that have decoded nothing for so many seconds."""
        now = time.monotonic()
        with self._lock:
            ended = [process for process in self._idle if now - process.idle_since >= idle_s]
            self._idle = [process for process in self._idle if process not in ended]
            self._all.difference_update(ended)
        for process in ended:
            process.forget()

    def close(self) -> None:
        """End all processes, at once."""
        with self._lock:
            self._is_closed = True
            processes = list(self._all)
            idle, self._idle = self._idle, []
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.end()
        for process in idle:
            process.forget()

    def _run(self, job: _Job, structure: Structure, auto_orient: bool) -> Image.Image:
        """Decode one image; runs in a thread of the pool."""
        seconds = self._settings.image_decode_s
        process = self._take()
        clock = threading.Timer(seconds * WALL_FACTOR + WALL_GRACE_S, process.end)
        clock.daemon = True
        clock.start()
        try:
            job.begin(process)
            return self._picture(process.decode(structure, auto_orient))
        except (OSError, EOFError):
            raise self._cause_of_death(process, structure) from None
        finally:
            clock.cancel()
            job.end()
            self._give_back(process)

    def _picture(self, answer: tuple[dict[str, Any], bytearray]) -> Image.Image:
        """The image that the process has returned; its errors are raised."""
        fields, pixels = answer
        error = fields.get("error")
        if error == "invalid":
            raise InvalidImage(fields["message"], field="image")
        if error == "memory":
            raise _no_memory()
        size = (fields["size"][0], fields["size"][1])
        if error == "too_large":
            check_pixels(size, self._settings.max_image_pixels)
        return Image.frombuffer("RGB", size, pixels, "raw", "RGB", 0, 1)

    def _cause_of_death(self, process: _Process, structure: Structure) -> Florence2Error:
        """The error for a process that ended before it returned the image."""
        code = process.wait()
        if self._is_closed:
            return Draining()
        if process.was_ended or code == -getattr(signal, "SIGXCPU", 0):
            seconds = self._settings.image_decode_s
            return ImageTooLarge(
                f"{NAME} takes more than {seconds:g} s to decode; scale it down, or save it as a baseline JPEG", field="image"
            )
        if code == -getattr(signal, "SIGKILL", 0):  # by the system, which is short of memory
            return _no_memory()
        return InvalidImage(f"The {structure.format} is damaged: its decoder ended with {code}.", field="image")

    def _take(self) -> _Process:
        """An idle process, started if there is none."""
        with self._lock:
            if self._is_closed:
                raise Draining
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                self._all.discard(process)
                process.forget()
            process = _Process(self._settings)
            self._all.add(process)
            return process

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            if process.is_alive and not process.was_ended and not self._is_closed and process.is_ready:
                process.idle_since = time.monotonic()
                self._idle.append(process)
                return
            self._all.discard(process)
        process.forget()


class _Job:
    """One image to be decoded; it may be cancelled before, while or after it is decoded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._is_cancelled = False

    def begin(self, process: _Process) -> None:
        """Let a cancellation end the process from now on."""
        with self._lock:
            self._process = process
            if self._is_cancelled:
                process.end()

    def end(self) -> None:
        """Leave the process alone from now on."""
        with self._lock:
            self._process = None

    def cancel(self) -> None:
        """End the process that decodes this image, now or as soon as one begins."""
        with self._lock:
            self._is_cancelled = True
            if self._process is not None:
                self._process.end()


class _Process:
    """One decoding process.

    Attributes:
        was_ended: the server has ended it.
        is_ready: it waits for an image.
        idle_since: when it has decoded its last image, by the monotonic clock.
    """

    def __init__(self, settings: Settings) -> None:
        self.was_ended = False
        self.idle_since = time.monotonic()
        self.is_ready = True
        max_bytes = BASE_BYTES + BYTES_PER_PIXEL * settings.max_image_pixels
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "florence2.server.inference.decoder_process"]
        self._process = subprocess.Popen(
            [*command, str(max_bytes), str(settings.image_decode_s), str(settings.max_image_pixels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
            # Ctrl-C reaches the server alone, which ends the process. Windows has no sessions, and other systems have no such flag.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def decode(self, structure: Structure, auto_orient: bool) -> tuple[dict[str, Any], bytearray]:
        """The process's message about one image, and the pixels.

        Raises:
            OSError, EOFError: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.is_ready = False
        fields = {
            "format": structure.format,
            "size": structure.size,
            "orientation": structure.orientation,
            "work": structure.work,
            "description": structure.description,
            "auto_orient": auto_orient,
        }
        write_all(self._process.stdin, message_head(fields, len(structure.data)))
        write_all(self._process.stdin, structure.data)
        answer = read_message(self._process.stdout)
        if answer is None:
            raise EOFError
        self.is_ready = True
        return answer

    def end(self) -> None:
        """Kill it; from any thread."""
        self.was_ended = True
        self._process.kill()

    def forget(self) -> None:
        """Kill it and close its pipes; no other thread may be using it."""
        self.end()
        self.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def wait(self) -> int | None:
        """Its exit code."""
        try:
            return self._process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return None


def _no_memory() -> OutOfMemory:
    return OutOfMemory("there is not enough memory to decode the image; send it again later, or scale it down", field="image")
