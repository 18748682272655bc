"""What holds for all tests: programs that they start can be interrupted.

A shell that puts this run in the background has it ignore SIGINT, and every program that is started from here would inherit that.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
