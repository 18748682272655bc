"""Standard output and standard error, whatever they are: a terminal, a pipe that was closed, a full disk, another encoding.

In: lines for people, and values for programs. Out: text that the stream can hold; nothing that is printed ends a program with a
traceback. Every command of this package runs inside ``program``; ``-q`` and ``-v`` set how much is reported there.
Knows nothing of models or images.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from florence2.errors import DatasetError, Florence2Error, InvalidRequest, ModelNotFound

INTERRUPTED = 130  # the exit code that shells know for Ctrl-C
LONGEST_LINE = 500  # of an error; what is longer loses its middle
# What would move the cursor or begin a line, and bytes of a file's name that are no UTF-8.
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What the library's messages call a thing that the command line calls otherwise; all else goes by the options of the command that runs.
_SYNONYMS = {"num_beams": "beams", "region=(x1, y1, x2, y2)": "region"}
_VALUES = {"region=(x1, y1, x2, y2)": " x1,y1,x2,y2"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_APART = r"(?<![\w./?&-])"  # not within a path, an option or the words behind a data set's name
NO_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"  # what the hub's client looks at
_DUMB = {"dumb", "unknown"}
_WRITE_FAILED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EAGAIN})


@dataclass
class _Reporting:
    """What this process reports on standard error.

    Attributes:
        is_quiet: errors alone are reported (``-q``).
        is_verbose: what the library logs is reported as well (``-v``).
        flags: the options of the command that runs, by the names of their parameters.
    """

    is_quiet: bool = False
    is_verbose: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)


reporting = _Reporting()


@contextmanager
def program() -> Iterator[None]:
    """Surrounds a command: each error is one line, and the exit code is right whatever became of the streams.

    Raises:
        SystemExit: always; with the exit code.
    """
    _open_streams()
    code: int | str | None = 0
    try:
        _check_current_folder()
        with _log_reported():
            yield
    except SystemExit as left:
        code = left.code
    except Florence2Error as error:
        report_error(error)
        code = exit_code(error)
    except KeyboardInterrupt:  # before the command has begun; later ones are the command's
        code = INTERRUPTED
    except BrokenPipeError:  # the reader has closed the pipe
        code = 1
    except OSError as error:
        if error.filename is None and error.errno not in _WRITE_FAILED:
            raise
        report(_what_failed(error))
        code = 1
    finally:
        code = _flushed(code)
        reporting.__init__()  # the manner of one command is not that of the next one in this process
    sys.exit(code)


def exit_code(error: Florence2Error) -> int:
    """2 for what the user can mend in the command, 1 for the rest."""
    return 2 if isinstance(error, (InvalidRequest, ModelNotFound)) else 1


def report_error(error: Florence2Error, path: Path | str | None = None) -> None:
    """Print an error as one line on standard error; one of a data set has a line for each thing that is wrong with it."""
    for line in error.message.splitlines() if isinstance(error, DatasetError) else [" ".join(error.message.split())]:
        is_named = path is None or any(name in line for name in (str(path), repr(str(path))[1:-1], os.path.abspath(path)))
        report(f"florence2: {'' if is_named else f'{path}: '}{in_flags(line, error.field)}")


def in_flags(message: str, about: str | None = None) -> str:
    """A message in the words of the command line: what the library calls ``num_beams`` is ``--beams`` there.

    Args:
        message: the library's.
        about: the field that is at fault; where the message begins with its name, that is meant.
    """
    names = {**reporting.flags, **{word: reporting.flags[name] for word, name in _SYNONYMS.items() if name in reporting.flags}}
    for name in sorted(names, key=len, reverse=True):
        word, flag = re.escape(name), names[name] + _VALUES.get(name, "")
        if "=" in name or "_" in name:
            message = re.sub(rf"{_APART}{word}(=True)?(?![\w/]|\.\w)", flag, message)
        else:  # a word that sentences may hold as well
            message = re.sub(rf"{_APART}{word}=(True\b)?|(?<=\bleave ){word}(?= out\b)", flag, message)
        if name == about:
            message = re.sub(rf"^{word}(?= (must|is|was|goes|holds|takes|needs)\b)", flag, message)
    return message


def notify(line: str) -> None:
    """Print a notice on standard error, unless ``-q`` is given."""
    if not reporting.is_quiet:
        report(line)


def report(line: str) -> None:
    """Print a line on standard error; one that can't be printed is dropped."""
    text = shown(line)
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE * 3 // 5]} … {text[3 - LONGEST_LINE * 2 // 5 :]}"
    with suppress(OSError, ValueError):  # ValueError: a stream that was closed
        print(text, file=sys.stderr, flush=True)


def shown(text: object) -> str:
    r"""A text on one line, without characters that a terminal would obey; bytes of a file's name that are no UTF-8 as ``\xff``."""
    return _UNSHOWABLE.sub(lambda found: _escaped(found[0]), str(text))


def json_line(value: Any) -> str:
    """A value as JSON for standard output: UTF-8 where that is what the stream holds, else every other character escaped."""
    line = json.dumps(value, ensure_ascii=False)
    is_utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig", "cp65001")
    return line if is_utf8 and not _UNSHOWABLE.search(line) else json.dumps(value)


def name_of(path: Path | str) -> str:
    """A path as text for programs: as UTF-8 where the locale reads it as something else."""
    text = str(path)
    return text if not _SURROGATE.search(text) else os.fsencode(text).decode("utf-8", "surrogateescape")


def print_path(path: Path) -> None:
    """Print a path on standard output: as text on a terminal, byte for byte elsewhere."""
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        print(shown(path), flush=True)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
        sys.stdout.buffer.flush()


def is_interactive(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can move its cursor, so that progress bars can be shown."""
    try:
        return stream.isatty() and os.environ.get("TERM", "").lower() not in _DUMB
    except ValueError:  # it was closed
        return False


class _LogReporter(logging.Handler):
    """Reports what the library logs: warnings, and the progress of downloads where no bar shows it; with ``-v`` all of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is reported."""
        is_download = record.name == "florence2.weights.hub" and not is_interactive(sys.stderr)
        least = logging.ERROR if reporting.is_quiet else logging.INFO if reporting.is_verbose or is_download else logging.WARNING
        return record.levelno >= least

    def emit(self, record: logging.LogRecord) -> None:
        """Report it."""
        report(f"florence2: {record.getMessage()}")


@contextmanager
def _log_reported() -> Iterator[None]:
    """Report the library's log, and the warnings of any library, in lines of this program, unless a command sends them elsewhere."""
    logger, handler = logging.getLogger("florence2"), _LogReporter()
    level, warn, bars = logger.level, warnings.showwarning, os.environ.get(NO_BARS)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    warnings.showwarning = lambda message, *_, **__: notify(f"florence2: {' '.join(str(message).split())}")
    try:
        yield
    finally:
        warnings.showwarning = warn
        os.environ.pop(NO_BARS, None)
        os.environ.update({} if bars is None else {NO_BARS: bars})
        logger.removeHandler(handler)
        logger.setLevel(level)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode("ascii")


def _open_streams() -> None:
    """Make sure that the three streams exist and take any text."""
    for descriptor in range(3):
        if not _is_open(descriptor):  # or the next file that is opened would take its number, and its output
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _check_current_folder() -> None:
    """Refuse to run where there is no folder any more, in which PyTorch's libraries end the process.

    Raises:
        InvalidRequest: the current folder was removed.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise InvalidRequest("the current folder is gone; change to one that is there") from error


def _flushed(code: int | str | None) -> int | str | None:
    """The exit code, after what is still buffered was written; what can't be is dropped, or the interpreter would stumble over it."""
    error = _flush_failure(sys.stdout)
    _flush_failure(sys.stderr)
    if error is None or code:
        return code
    if not isinstance(error, BrokenPipeError):
        report(_what_failed(error))
    return 1


def _flush_failure(stream: TextIO) -> OSError | None:
    try:
        stream.flush()
    except OSError as error:
        _drop(stream)
        return error
    except ValueError:  # closed already
        pass
    return None


def _drop(stream: TextIO) -> None:
    """Discard what a stream still holds."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _what_failed(error: OSError) -> str:
    what = "standard output can't be written" if error.filename is None else str(error.filename)
    return f"florence2: {what}: {error.strerror or error}"
