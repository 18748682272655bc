"""Processors that may be used, from files laid out as the kernel lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from florence2 import cores

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"


def laid_out(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A system with these files, below ``root``."""
    content = {
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": OTHERS + mounts,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v1(folder: str, quota: int, period: int = 100000) -> dict[str, str]:
    return {f"cpu,cpuacct{folder}/cpu.cfs_quota_us": f"{quota}\n", f"cpu,cpuacct{folder}/cpu.cfs_period_us": f"{period}\n"}


CASES = {
    "v2, in a container with a view of its own": ("0::/\n", V2, {"cpu.max": "200000 100000\n"}, 2),
    "v2, no quota": ("0::/\n", V2, {"cpu.max": "max 100000\n"}, None),
    "v2, the top has no file": ("0::/\n", V2, {}, None),
    "v2, another period": ("0::/\n", V2, {"cpu.max": "25000 50000\n"}, 0.5),
    "v2, the pod's quota around the container's": (
        "0::/kubepods/pod1/box\n",
        V2,
        {"kubepods/pod1/cpu.max": "150000 100000\n", "kubepods/pod1/box/cpu.max": "400000 100000\n", "kubepods/cpu.max": "max 100000\n"},
        1.5,
    ),
    "v2, the innermost is the smallest": (
        "0::/a.slice/b.service\n",
        V2,
        {"a.slice/cpu.max": "800000 100000\n", "a.slice/b.service/cpu.max": "300000 100000\n"},
        3,
    ),
    "v2, the group can't be seen from here": ("0::/../other\n", V2, {"cpu.max": "200000 100000\n"}, 2),
    "v2, mounted below its top": (
        "0::/docker/abc/inner\n",
        V2.replace(" / /sys", " /docker/abc /sys"),
        {"inner/cpu.max": "100000 100000\n"},
        1,
    ),
    "v1": ("4:cpu,cpuacct:/\n3:cpuset:/\n", V1.format(top="/"), v1("", 250000), 2.5),
    "v1, no quota": ("4:cpu,cpuacct:/\n", V1.format(top="/"), v1("", -1), None),
    "v1, docker without a view of its own": ("4:cpu,cpuacct:/docker/abc\n", V1.format(top="/docker/abc"), v1("", 200000), 2),
    "v1, nested": (
        "4:cpu,cpuacct:/slice/job\n",
        V1.format(top="/"),
        {**v1("", -1), **v1("/slice", 300000), **v1("/slice/job", 500000)},
        3,
    ),
    "v1, the group's folder is not mounted": ("4:cpu,cpuacct:/docker/abc\n", V1.format(top="/"), v1("", 100000), 1),
    "both, quotas in version 1": (
        "4:cpu,cpuacct:/job\n0::/job\n",
        V1.format(top="/") + V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "),
        v1("/job", 200000),
        2,
    ),
    "a blank in a path": (
        "0::/my job\n",
        V2.replace("/sys/fs/cgroup ", r"/sys/fs/cgroup/the\040groups "),
        {"the groups/my job/cpu.max": "100000 100000\n"},
        1,
    ),
    "nonsense": ("0::\nx\n\n", V2 + "what is this\n - \n", {"cpu.max": "many few\n"}, None),
    "a period of nothing": ("0::/\n", V2, {"cpu.max": "100000 0\n"}, None),
}


@pytest.mark.parametrize(("groups", "mounts", "files", "expected"), CASES.values(), ids=CASES.keys())
def test_the_smallest_quota_of_all_groups_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, mounts: str, files: dict[str, str], expected: float | None
) -> None:
    root = laid_out(tmp_path, groups, mounts, files)
    assert cores.cpu_quota(root) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cores.usable_cores(root) == (64 if expected is None else max(1, -(-expected // 1)))


def test_affinity_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = laid_out(tmp_path, "0::/\n", V2, {"cpu.max": "800000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 9}, raising=False)
    assert cores.usable_cores(root) == 3


def test_systems_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.usable_cores(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.usable_cores(tmp_path) == 1
