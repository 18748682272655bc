"""Several replicas of the ingress: keys, limits and usage are shared, one that is killed loses none, and ``/metrics`` shows all."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from fixtures.fake_replica import demo_facts, fake_engines
from florence2.cluster.config import cluster_config
from florence2.server.accounts.database import Database
from florence2.server.accounts.key_info import KeyInfo
from florence2.server.accounts.store import KeyStore
from florence2.server.accounts.usage import read_usage
from tests.server.accounts.services import running_postgresql, running_redis
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
SCENE = Path(__file__).parents[2] / "examples" / "scene.png"
RATE = 5


@dataclass
class Served:
    """The application with two replicas of the ingress, and its keys."""

    url: str
    database: Database
    asking: str
    managing: str

    def ask(self, key: str) -> httpx.Response:
        """One question, on a connection of its own, so that replicas take turns."""
        form = {"model_id": "florence-2-demo", "prompt": "<OD>", "api_key": key}
        return httpx.post(f"{self.url}/infer/lmm", data=form, files={"image": SCENE.read_bytes()}, timeout=60)

    def metrics(self) -> str:
        """What any of them says."""
        return httpx.get(f"{self.url}/metrics", params={"api_key": self.managing}, timeout=20).text

    def num_images(self) -> int:
        """The images that the asking key has used, by the database."""
        return sum(row.images for row in read_usage(self.database, key="asking"))


@pytest.fixture(scope="module")
def served(serve_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running_postgresql() as postgresql, running_redis() as redis:
        if postgresql is None or redis is None:
            pytest.skip("PostgreSQL or Redis is not installed")
        from ray import serve

        from florence2.cluster.application import application

        database = Database(url := postgresql.new_database())
        database.open()
        store = KeyStore(database)
        asking = store.create(KeyInfo("asking", frozenset({"infer"}), rate=f"{RATE}/hour"))
        managing = store.create(KeyInfo("managing", frozenset({"metrics", "manage", "infer"})))
        settings: dict[str, Any] = {"host": "127.0.0.1", "root_path": "/accounts", "log_level": "warning"}
        settings |= {"database": url, "limits_url": redis.url, "journal_folder": tmp_path_factory.mktemp("journal")}
        config = cluster_config({"settings": settings, "ingress": {"min_replicas": 2}}, "the test")
        serve.run(application(config, fake_engines(demo_facts(), 10)), name="accounts", route_prefix="/accounts")
        yield Served(f"http://127.0.0.1:{serve_port}/accounts", database, asking, managing)
        serve.delete("accounts")
        database.close()


def replicas_of(text: str, metric: str) -> dict[str, float]:
    """The values of a metric, by the replica that counted it."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(rf"^{metric}{{(.*)}} (\S+)$", text, re.MULTILINE):
        found[re.search(r'replica="(\w+)"', labels)[1]] += float(value)  # type: ignore[index]
    return dict(found)


def asked_replicas(served: Served) -> dict[str, float]:
    """How many requests each replica has counted."""
    return replicas_of(served.metrics(), "http_requests_total")


def test_limits_and_usage_are_of_all_replicas_and_outlive_a_killed_one(served: Served) -> None:
    assert served.ask("no-such-key-at-all").status_code == 401
    assert [served.ask(served.asking).status_code for _ in range(2)] == [200, 200]
    # Which replica gets a request is Ray's choice; those without a key count for nobody.
    wait_until(lambda: served.ask("no-such-key-at-all").status_code == 401 and len(asked_replicas(served)) == 2, 30)
    text = served.metrics()
    assert len(replicas_of(text, "florence2_ready")) == 2
    assert sum(replicas_of(text, "florence2_key_images_total").values()) == 2
    assert text.count("# TYPE florence2_ready gauge") == 1
    pids = pids_of_ingress()
    statuses = Counter(served.ask(served.asking).status_code for _ in range(RATE - 2 + 3))
    os.kill(pids[0], signal.SIGKILL)
    assert statuses == {200: RATE - 2, 429: 3}
    assert len(pids) == 2
    wait_until(lambda: served.num_images() == RATE, 60)
    wait_until(lambda: served.ask(served.asking).status_code == 429, 60)


def pids_of_ingress() -> list[int]:
    """The processes of the application's ingress."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = b"accounts:Ingress" in (process / "cmdline").read_bytes() and _is_below(int(process.name), os.getpid())
        except OSError:
            continue
        if is_ours:
            found.append(int(process.name))
    return found


def _is_below(pid: int, above: int) -> bool:
    """Whether a process was started by another one, or by one that it started."""
    while pid > 1:
        if pid == above:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
