"""Frames of videos as pictures, decoded by FFmpeg through PyAV.

In: a video, how far apart frames are taken, and which of them are wanted. Out: frames in RGB, upright, in order, each decoded when it is
its turn. A frame is taken at 0, 1, 2, … times the distance: the one that is shown then, and none twice. Where the next one lies far ahead,
it is sought by the file's index. Knows nothing of names.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from florence2.extras import requires
from florence2.image_files import MAX_PIXELS, START_BYTES
from florence2.inputs.media import container_of

if TYPE_CHECKING:
    from av import VideoFrame

SEEK_GAP_S = 10  # what lies nearer is decoded as fast as found
_LONGEST_S = 10**7  # what claims to be longer than four months is damaged
_MAX_BAD_PACKETS = 500  # in a row
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, -180: Image.Transpose.ROTATE_180, -90: Image.Transpose.ROTATE_270}


class BrokenVideo(Exception):
    """A video that can't be decoded, or not to its end; its text says why."""


class Video:
    """An open video.

    Attributes:
        seconds: how long it is by its own account; None where it says nothing of its pictures.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.seconds = _seconds(container, stream)
        self._start: Fraction | None = None
        self._position = Fraction(-1)  # of the last frame
        self._sought: Fraction | None = None
        # MPEG streams have no index, and guesses at their length.
        self._can_seek = self.seconds is not None and not container.format.name.startswith("mpeg")
        self._jumped_to: Fraction | None = None
        self._error: Exception | None = None

    def by_count(self, distance: int, is_wanted: Callable[[int], bool]) -> Iterator[tuple[int, Image.Image]]:
        """Every so many frames one, where it is wanted, with its number from 0.

        Raises:
            BrokenVideo: at the end, if that comes too early.
        """
        end = Fraction(0)
        for number, (_, until, frame) in enumerate(self._shown()):
            end = until
            if number % distance == 0 and is_wanted(number):
                yield number, picture_of(frame)
        self._check_end(end)

    def by_time(self, distance: Fraction, is_wanted: Callable[[float], bool]) -> Iterator[tuple[float, Image.Image]]:
        """The frames that are shown at multiples of the distance and are wanted, with that time in seconds.

        Raises:
            BrokenVideo: at the end, if that comes too early.
        """
        end, following = Fraction(0), 0
        for time, until, frame in self._shown():
            end = until
            target = ceil(time / distance) * distance
            if target < end and is_wanted(float(target)):
                yield float(target), picture_of(frame)
            following = self._next_wanted(max(following, ceil(end / distance)), distance, is_wanted)
            if self._can_seek and following * distance - end > SEEK_GAP_S:
                if following * distance >= (self.seconds or 0):
                    return
                self._sought = following * distance
        self._check_end(end)

    def _next_wanted(self, multiple: int, distance: Fraction, is_wanted: Callable[[float], bool]) -> int:
        """Which multiple of the distance is wanted next; where none is, the first behind the end by the video's own account."""
        behind = ceil((self.seconds or 0) / distance)
        while multiple < behind and not is_wanted(float(multiple * distance)):
            multiple += 1
        return multiple

    def _shown(self) -> Iterator[tuple[Fraction, Fraction, VideoFrame]]:
        """Each frame with the times from when until when it is shown."""
        shown: VideoFrame | None = None
        for frame in self._decoded():
            time = self._time(frame)
            if self._jumped_to is not None:
                is_before = self._position < time <= self._jumped_to
                shown, self._jumped_to = None, None
                if not is_before:  # the frames that can be sought lie too far apart, or the index is wrong
                    self._can_seek, self._sought = False, Fraction(0) if time > self._position else None
                    continue
            if time <= self._position:
                continue
            if shown is not None:
                yield self._position, time, shown
            shown, self._position = frame, time
        if shown is not None:
            yield self._position, self._position + 1 / self._rate, shown

    def _decoded(self) -> Iterator[VideoFrame]:
        """All frames; behind one after which a time was sought, those from before that time on."""
        while True:
            for frame in self._frames():
                yield frame
                if self._sought is not None:
                    break
            else:
                return
            self._seek(self._sought)
            self._sought = None

    def _frames(self) -> Iterator[VideoFrame]:
        """The frames from here on; packets that are damaged are passed over."""
        from av.error import InvalidDataError

        num_bad = 0
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                    num_bad = 0
                except InvalidDataError as error:
                    num_bad += 1
                    self._error = error if num_bad > _MAX_BAD_PACKETS else self._error
                    if self._error:
                        return
                    continue
                yield from frames
        except Exception as error:  # PyAV raises whatever the broken bytes led it to
            self._error = error

    def _seek(self, time: Fraction) -> None:
        """Go on with a frame before a time; where that can't be found, with the next one."""
        position = int((time + (self._start or 0)) / self._stream.time_base)
        try:
            self._container.seek(position, stream=self._stream, backward=True)
            self._jumped_to = time
        except Exception:  # as above
            self._can_seek = False

    def _time(self, frame: VideoFrame) -> Fraction:
        """When a frame is shown, counted from the first one."""
        if frame.pts is None or frame.time_base is None:
            self._can_seek = False
            return max(Fraction(0), self._position + 1 / self._rate)
        time = frame.pts * frame.time_base
        if self._start is None:
            self._start = time
        return time - self._start

    def _check_end(self, end: Fraction) -> None:
        """Refuse a video that ends before its end."""
        if self._position < 0:
            raise BrokenVideo(f"no frame of the video can be decoded{_because(self._error)}")
        missing = (self.seconds or Fraction(0)) - end
        if self._error or missing > max(Fraction(1, 2), Fraction(3, 2) / self._rate):
            length = f", though it is {float(self.seconds):.1f} s long by its own account" if self.seconds else ""
            raise BrokenVideo(f"the video is damaged or cut off: it can be decoded for {float(end):.1f} s{length}{_because(self._error)}")


@contextmanager
def opened(source: Path | bytes) -> Iterator[Video]:
    """A video that is closed behind the block.

    Raises:
        BrokenVideo: it is damaged, or has no pictures.
        MissingExtra: PyAV is not installed.
    """
    with requires("video", "a video"):
        import av
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        name = container_of(file.read(START_BYTES))
        file.seek(0)
        try:
            # Of one format by its first bytes: FFmpeg's readers of playlists would open other files and addresses.
            container = av.open(file, format=name, metadata_errors="replace")
        except Exception as error:  # as above
            raise BrokenVideo(f"the video is damaged or cut off{_because(error)}") from error
        with container:
            streams = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not streams:
                raise BrokenVideo(
                    "it has sound and no pictures"
                    if container.streams.audio
                    else "the video is damaged or cut off: no pictures are found in it"
                )
            if streams[0].codec_context is None:
                raise BrokenVideo("its pictures are in a codec that is not read here; convert it to H.264")
            streams[0].thread_type = "AUTO"
            streams[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield Video(container, streams[0])


def picture_of(frame: VideoFrame) -> Image.Image:
    """A frame in RGB, turned as its file says.

    Raises:
        BrokenVideo: it can't be converted.
    """
    try:
        picture = frame.to_image()
        turn = _TURNS.get(round(frame.rotation / 90) * 90)
    except Exception as error:  # as above
        raise BrokenVideo(f"a frame of {frame.width} x {frame.height} pixels can't be converted{_because(error)}") from error
    return picture if turn is None else picture.transpose(turn)


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the picture of an album, and no video."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _seconds(container: Any, stream: Any) -> Fraction | None:
    """How long a video is by its own account."""
    seconds: Fraction | None = None
    if stream.duration and stream.time_base:
        seconds = stream.duration * stream.time_base
    elif len(named := str(stream.metadata.get("DURATION", "")).split(":")) == 3:
        with suppress(ValueError):
            seconds = int(named[0]) * 3600 + int(named[1]) * 60 + Fraction(named[2])
    elif container.duration and len(container.streams) == 1:
        seconds = Fraction(container.duration, 1_000_000)
    return seconds if seconds is not None and 0 < seconds < _LONGEST_S else None


def _because(error: Exception | None) -> str:
    return "" if error is None else f" ({str(getattr(error, 'strerror', None) or error)[:120]})"
