"""Which models leave: by memory, by places, for lack of use; never those that stay, and busy ones last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.engine_stats import EngineStats
from florence2.errors import InvalidOption, OutOfMemory
from florence2.server.inference.model_room import ModelRoom, weight_bytes
from florence2.server.inference.models import LoadedModel, Models
from florence2.server.settings import Settings, read_settings
from florence2.usable_memory import usable_memory

GB = 10**9


class SizedEngine(FakeEngine):
    """Reports so much memory, and so many requests in flight."""

    def __init__(self, memory_bytes: int = GB, num_running: int = 0) -> None:
        super().__init__()
        self.memory_bytes, self.num_running = memory_bytes, num_running

    def stats(self) -> EngineStats:
        return EngineStats(memory_bytes=self.memory_bytes, num_running=self.num_running)


def room_of(pinned: Sequence[str] = (), clock: Callable[[], float] = lambda: 100.0, **settings: Any) -> ModelRoom:
    return ModelRoom(Settings(**settings), pinned, clock)


def loaded(name: str, used_at: float, **engine: Any) -> LoadedModel:
    return LoadedModel(name, SizedEngine(**engine), 0.0, name, used_at)


def names(models: list[LoadedModel]) -> list[str]:
    return [model.id for model in models]


def test_the_least_recently_used_leave_until_the_rest_fits() -> None:
    room = room_of(["pinned"], max_model_bytes="3GB")
    models = [loaded("pinned", 0.0), loaded("old", 1.0), loaded("older", 0.5), loaded("new", 3.0)]
    assert names(room.too_many(models)) == ["older"]
    assert names(room.too_many(models, needed_bytes=GB)) == ["older", "old"]
    assert names(room.too_many(models, needed_bytes=9 * GB)) == ["older", "old", "new"]
    assert names(room.too_many(models, newest=models[2], needed_bytes=GB)) == ["old", "new"]
    assert names(room.too_many(models[:3])) == []


def test_busy_ones_leave_last() -> None:
    room = room_of(max_model_bytes=GB)
    assert names(room.too_many([loaded("busy", 0.0, num_running=1), loaded("new", 9.0)])) == ["new"]


def test_idle_ones_leave_after_the_setting() -> None:
    room = room_of(["pinned"], model_idle_s=10)
    models = [loaded("pinned", 0.0), loaded("idle", 89.0), loaded("busy", 0.0, num_running=1), loaded("new", 91.0)]
    assert names(room.idle(models)) == ["idle"]
    assert room_of(clock=lambda: 1e9).idle(models) == []


def test_what_stays_may_leave_no_room() -> None:
    room = room_of(["pinned"], max_model_bytes="2 GB")
    models = [loaded("pinned", 0.0, memory_bytes=GB), loaded("other", 0.0, memory_bytes=GB)]
    room.check("next", GB, models)
    with pytest.raises(
        OutOfMemory, match=r"no room for next: it needs at least 1\.50 GB, and of the 2\.00 GB .* 1\.00 are taken"
    ) as raised:
        room.check("next", 3 * GB // 2, models)
    assert raised.value.status == 503
    room.check("pinned", 9 * GB, models)


@pytest.mark.parametrize(("given", "expected"), [("4GB", 4 * GB), ("512 MiB", 2**29), ("1000", 1000), (4096, 4096)])
def test_sizes_are_written_as_people_do(given: object, expected: int) -> None:
    assert room_of(max_model_bytes=given).max_bytes == expected


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidOption, match="max_model_bytes"):
        read_settings({"max_model_bytes": "much"})


def test_folders_in_a_file_of_settings_are_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "conf" / "server.toml"
    file.parent.mkdir()
    file.write_text('model = ["./first", "mine=../second", "florence-2-base"]\n[models]\nthird = "./a+../b"\nhub = "owner/name"\n')
    settings = read_settings({"config": file})
    assert settings.model == [str(file.parent / "first"), f"mine={tmp_path / 'second'}", "florence-2-base"]
    assert settings.models == {"third": f"{file.parent / 'a'}+{tmp_path / 'b'}", "hub": "owner/name"}


def test_by_default_a_share_of_the_memory_that_there_is() -> None:
    usable = usable_memory()
    assert usable is not None
    assert room_of(device="cpu").max_bytes == int(usable * 0.6)
    assert room_of(device="cuda").max_bytes is None


def test_limits_of_containers_count(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/a\n0::/b/c\n")
    for folder, name, limit in (
        ("sys/fs/cgroup/b/c", "memory.max", "max\n"),
        ("sys/fs/cgroup/b", "memory.max", "5000\n"),
        ("sys/fs/cgroup/memory/a", "memory.limit_in_bytes", "7000\n"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(limit)
    assert usable_memory(tmp_path) == 5000


def test_the_size_of_weights_on_this_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 70)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 90)
    assert weight_bytes(str(tmp_path)) == 70
    assert weight_bytes("owner/name") == weight_bytes("florence-2-base") == weight_bytes("nothing") == 0


@pytest.mark.anyio
async def test_models_make_room_and_leave_when_idle(tmp_path: Path) -> None:
    sources = {}
    for name in ("one", "two", "huge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * (100 if name != "huge" else 1000))
        sources[name] = str(tmp_path / name)
    settings: dict[str, Any] = {"models": sources, "model": [], "max_model_bytes": 150, "model_idle_s": 0.2}
    models = Models(Settings(**settings), lambda source: SizedEngine(100))
    first, _ = await models.get("one")
    await models.get("two")
    assert [model.id for model in models.loaded] == ["two"]
    assert first.engine.is_closed  # type: ignore[attr-defined]
    with pytest.raises(OutOfMemory, match="no room for huge"):
        await models.get("huge")
    assert [model.id for model in models.loaded] == ["two"]
    for _ in range(100):
        if not models.loaded:
            break
        await asyncio.sleep(0.02)
    assert not models.loaded
    await models.close(cancel=True)
