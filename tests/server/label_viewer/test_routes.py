"""What the page may ask its server: pictures by their index alone, by nobody but pages of this machine, and a run that grows."""

from __future__ import annotations

import io
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from fixtures.labelled_scenes import labelled_scenes, set_of
from florence2.datasets.labelled import LabelledPicture
from florence2.server.label_viewer.app import FILES, create_app
from florence2.server.label_viewer.index import Problem
from florence2.server.label_viewer.pictures import Copies
from florence2.server.label_viewer.run import Run, Source

pytestmark = pytest.mark.anyio

PROBLEM = Problem("torn.jpg", "/photos/torn.jpg", None, "the image is damaged")


@asynccontextmanager
async def client_of(pictures: list[LabelledPicture], host: str = "127.0.0.1:9003") -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the page of these pictures, which may grow."""
    run = Run(Source("scenes", lambda: (set_of(pictures), [PROBLEM]), lambda: len(pictures)))
    transport = httpx2.ASGITransport(create_app(run), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        yield client


async def listed(client: httpx2.AsyncClient, **words: Any) -> dict[str, Any]:
    version = (await client.get("/api/summary")).json()["version"]
    return (await client.get("/api/pictures", params={"version": version, "start": 0, "count": 50, **words})).json()


async def test_the_page_and_its_files(tmp_path: Path) -> None:
    async with client_of([]) as client:
        page = await client.get("/")
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?://", page.text)
        for link in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
            assert (await client.get(f"/{link}")).status_code == 200, link
        assert {"viewer.js", "large.js", "words.js", "page_words.js"} <= set(FILES.names)
        for name in ("../app.py", "..%2fapp.py", "/etc/passwd", ""):
            assert (await client.get(f"/assets/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [("127.0.0.1:9003", True), ("localhost:8123", True), ("evil.com", False), ("127.0.0.1.evil.com", False), ("localhost.evil.com", False)],
)
async def test_only_this_machines_own_names_are_answered(host: str, is_answered: bool) -> None:
    async with client_of([], host) as client:
        for path in ("/", "/api/summary", "/assets/app.js", "/small/x/0"):
            assert ((await client.get(path)).status_code != 400) is is_answered


async def test_copies_are_upright_jpeg_files_and_kept_while_the_file_is_the_same(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (900, 600), "red").save(tmp_path / "turned.jpg", exif=exif)
    (one,) = labelled_scenes(tmp_path, 1)
    async with client_of([replace(one, file=tmp_path / "turned.jpg", size=(600, 900))]) as client:
        version = (await client.get("/api/summary")).json()["version"]
        small, large = [await client.get(f"/{size}/{version}/0") for size in ("small", "large")]
        for answer, size in ((small, (256, 384)), (large, (600, 900))):
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            with Image.open(io.BytesIO(answer.content)) as copy:
                assert copy.size == size
        again = {"if-none-match": small.headers["etag"]}
        assert (await client.get(f"/small/{version}/0", headers=again)).status_code == 304
        Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg")
        os.utime(tmp_path / "turned.jpg", (1, 1))
        assert (await client.get(f"/small/{version}/0", headers=again)).status_code == 200
        (tmp_path / "turned.jpg").unlink()
        gone = await client.get(f"/large/{version}/0")
        assert gone.status_code == 400
        assert "the file is gone" in gone.json()["message"]


async def test_nothing_but_pictures_of_the_run_is_sent(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (one,) = labelled_scenes(tmp_path, 1)
    async with client_of([replace(one, file=tmp_path / "secret.txt")]) as client:
        version = (await client.get("/api/summary")).json()["version"]
        answer = await client.get(f"/large/{version}/0")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_image")
        for path in ("1", "2", "99999999999999999999", "-1", "x", f"..%2f{tmp_path}", "0/../../secret.txt"):
            assert (await client.get(f"/small/{version}/{path}")).status_code == 404, path
        assert (await client.post("/api/summary")).status_code == 405


async def test_a_page_of_pictures_and_what_it_may_not_ask(tmp_path: Path) -> None:
    pictures = labelled_scenes(tmp_path, 300, num_files=2)
    async with client_of(pictures) as client:
        everything = await listed(client, count=100_000)
        assert (everything["total"], len(everything["pictures"])) == (301, 200)
        part = await listed(client, start=298, count=10, order="set")
        assert [one["name"] for one in part["pictures"]] == [pictures[298].name, pictures[299].name, "torn.jpg"]
        assert (await listed(client, start=10**11))["pictures"] == []
        for words in ({"start": -1}, {"count": "x"}, {"start": "1" * 30}, {"order": "x"}, {"min_score": "inf"}):
            assert (await listed(client, **words))["code"] == "invalid_request", words
        version = (await client.get("/api/summary")).json()["version"]
        place = {"version": version, "name": pictures[7].name}
        assert (await client.get("/api/position", params=place)).json() == {"position": 7}
        assert (await client.get("/api/position", params={**place, "shown": "problems"})).json() == {"position": None}


async def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    (one,) = labelled_scenes(tmp_path, 1)
    async with client_of([replace(one, name="\udcff.png", where="/\udcff.png")]) as client:
        assert (await listed(client))["pictures"][0]["name"] == "\udcff.png"


async def test_a_run_that_grows(tmp_path: Path) -> None:
    later = labelled_scenes(tmp_path, 5)
    pictures = later[:3]
    async with client_of(pictures) as client:
        first = (await client.get("/api/summary")).json()
        assert (first["num_labelled"], first["num_problems"]) == (3, 1)
        words = {"version": first["version"], "start": 0, "count": 50}
        assert (await client.get("/api/pictures", params=words)).json()["has_changed"] is False
        pictures.extend(later[3:])
        grown = (await client.get("/api/pictures", params=words)).json()
        assert (grown["has_changed"], grown["total"]) == (True, 4)
        second = (await client.get("/api/summary")).json()
        assert second["num_labelled"] == 5
        assert (await client.get("/api/pictures", params=words)).status_code == 410
        assert (await client.get(f"/small/{first['version']}/0")).status_code == 410
        assert (await client.get(f"/small/{second['version']}/4")).status_code == 200


def test_small_copies_are_kept_within_bounds(tmp_path: Path) -> None:
    for number in range(6):
        Image.effect_noise((300, 200), 90).save(tmp_path / f"{number}.png")
    copies = Copies(max_bytes=60_000)
    sizes = [len(copies.small(str(tmp_path / f"{number}.png"), (1, 1))) for number in range(6)]
    assert sum(sizes) > 60_000
    assert sum(map(len, copies._kept.values())) == copies._num_bytes <= 60_000
    (tmp_path / "5.png").unlink()
    assert copies.small(str(tmp_path / "5.png"), (1, 1))  # the last one is there without its file
