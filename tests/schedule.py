"""Which tests stay in one process, and which begin first, where pytest-xdist spreads the tests over several processes.

In: the ids of all tests. Out: the groups, each of which one worker runs in the order of its file. The tests of a file share servers,
browsers and what they have noted, those of ``tests/cluster`` one Ray. ``--dist loadgroup`` of pytest-xdist 3.8 can't do it: it writes the
name of a group into a test's id, which pytest 9.2 computes anew, so that tests are spread one by one and nothing says so
(pytest-dev/pytest-xdist#1386). Here ids are read only, and ``test_schedule.py`` runs two workers to see that it holds.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/cluster",)
# What takes longest begins first, so that no worker is left with it in the end: seconds on one of two processors that are both busy.
LONGEST_S = {
    "tests/cluster": 330,
    "tests/docs/test_commands.py": 310,
    "tests/server/http/test_shutdown.py": 125,
    "tests/server/http/test_process.py": 125,
    "tests/playground/test_flows.py": 120,
    "tests/cli/test_train.py": 95,
    "tests/playground/test_errors.py": 75,
}


class Schedule(LoadScopeScheduling):
    """A worker takes a whole group at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The folder or the file whose tests stay in one process with this one."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


def rank(nodeid: str) -> int:
    """By which tests are sorted: those of the longest groups first, the others in their order."""
    return -LONGEST_S.get(group_of(nodeid), 0)
