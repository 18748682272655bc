"""How far a command is."""

from __future__ import annotations

import io
import sys
from typing import cast

import pytest

from florence2.cli.progress import Lines, Progress, duration, show_progress
from florence2.console import reporting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal for standard error; in the test itself, because pytest captures anew when it begins."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return cast("Terminal", sys.stderr)


def test_a_few_are_not_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    with show_progress("images", 5) as going:
        assert type(going) is Progress


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setattr(reporting, "is_quiet", True)
    with show_progress("images", 500) as going:
        going.advance()
    assert screen.getvalue() == ""


def test_a_terminal_gets_a_bar_that_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen = terminal(monkeypatch)
    with show_progress("images", 8) as going:
        for _ in range(3):
            with going.printing():
                print("an answer")
            going.advance()
        going.advance()
        going._bar.refresh()  # type: ignore[attr-defined]
        shown = screen.getvalue()
    assert "images" in shown
    assert "4/8" in shown
    assert "/s" in shown
    assert capsys.readouterr().out == "an answer\n" * 3
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K")


@pytest.mark.parametrize("kind", ["dumb", "pipe"])
def test_no_bar_where_the_cursor_cannot_move(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    screen = terminal(monkeypatch)
    if kind == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    else:
        monkeypatch.setattr(screen, "isatty", lambda: False)
    with show_progress("images", 8) as going:
        assert isinstance(going, Lines)


def test_elsewhere_a_line_comes_every_half_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = Lines("images", 100, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 8.0
        lines.advance()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "florence2: 4 of 100 images, 0.12/s, 13 min left"
    assert told[-1] == "florence2: 96 of 100 images, 0.12/s, 32 s left"
    assert len(told) == 24


def test_a_note_stands_beside_what_is_counted_and_a_total_may_come_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    lines = Lines("steps", clock=lambda: now[0])
    for number, total in ((1, None), (2, 8), (3, None)):
        now[0] += 40.0
        lines.update(number, total, f"loss [{number}]")
    assert capsys.readouterr().err.splitlines() == [
        "florence2: 1 steps, 0.025/s  loss [1]",
        "florence2: 2 of 8 steps, 0.025/s, 4 min left  loss [2]",
        "florence2: 3 of 8 steps, 0.025/s, 3 min left  loss [3]",
    ]
    screen = terminal(monkeypatch)
    with show_progress("steps") as going:
        going.update(2, 8, "loss [2]")
        going._bar.refresh()  # type: ignore[attr-defined]
        assert "2/8" in screen.getvalue()
        assert "loss [2]" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (100000, "27.8 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
