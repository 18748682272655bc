"""``florence2 infer`` with documents, videos, animations and tables: each page and frame is an image of its own."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from PIL import Image


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A document and a TIFF of three pages, and a video of three frames, one a second."""
    monkeypatch.chdir(tmp_path)
    for name in ("report.pdf", "scan.tif", "moving.gif"):
        first, *others = [Image.new("RGB", (32, 24), (80 * index,) * 3) for index in range(3)]
        first.save(name, save_all=True, append_images=others)
    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for index in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 24), (80 * index,) * 3))))
        container.mux(stream.encode())
    return tmp_path


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_lines_tell_the_page(infer, files: Path, stream: tuple[str, ...]) -> None:
    words = ["report.pdf", "clip.mp4", "scan.tif", "moving.gif", "--pages", "2-", "--every", "2s", "--frames", "all"]
    code, out, err = infer(*words, "-t", "caption,od", "--json", "--draw", "out", *stream)
    assert (code, err) == (0, "")
    lines = [line for line in map(json.loads, out.splitlines()) if "event" not in line]
    of_files = {
        "report.pdf": [{"page": 2}, {"page": 3}],
        "clip.mp4": [{"time_s": 0.0}, {"time_s": 2.0}],
        "scan.tif": [{"page": 2}, {"page": 3}],
        "moving.gif": [{"frame": 0}, {"frame": 1}, {"frame": 2}],
    }
    wanted = [(name, part, prompt) for name, parts in of_files.items() for part in parts for prompt in ("<CAPTION>", "<OD>")]
    assert [(line["image"], line["part"], line["prompt"]) for line in lines] == wanted
    assert {Path(line["drawing"]).name for line in lines if line["image"] == "clip.mp4"} == {
        f"clip-t0000{time}.000-{task}.png" for time in (0, 2) for task in ("caption", "od")
    }
    assert all(line["part"] for line in map(json.loads, out.splitlines()))


def test_people_see_the_page_and_a_plain_picture_has_none(infer, files: Path) -> None:
    code, out, err = infer("report.pdf", "scan.tif", "moving.gif", "-t", "caption")
    assert (code, err) == (0, "")
    titles = [line.partition(" (")[0] for line in out.splitlines() if " (" in line]
    assert titles == ["report.pdf#page=1", "report.pdf#page=2", "report.pdf#page=3", "scan.tif", "moving.gif"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scan.tif", "--pages", "4-"), "scan.tif can't be read: --pages 4- selects none of it: it has 3 pages"),
        (("scan.tif", "--pages", "0"), "--pages must be numbers from 1"),
        (("clip.mp4", "--every", "2"), "--every must be seconds such as 2s"),
        (("moving.gif", "--frames", "some"), "--frames must be first or all"),
        (("list.csv",), "the list list.csv has none of the columns"),
        (("list.csv", "--column", "b"), "there is no file '7'"),
    ],
)
def test_what_selects_nothing_is_told_before_a_model_is_loaded(
    infer, files: Path, no_model: None, words: tuple[str, ...], said: str
) -> None:
    (files / "list.csv").write_text("a,b\nscan.tif,7\n")
    code, out, err = infer(*words, "-t", "od")
    assert (code, out) == (2, "")
    assert said in err


def test_a_video_that_is_cut_off_gives_what_there_is(infer, files: Path) -> None:
    with av.open("clip.mp4") as whole, av.open("front.mp4", "w", options={"movflags": "faststart"}) as front:
        stream = front.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                front.mux(packet)
    content = (files / "front.mp4").read_bytes()
    (files / "front.mp4").write_bytes(content[: content.index(b"mdat") + 44])
    code, out, err = infer("front.mp4", "-t", "caption", "--json")
    *frames, last = map(json.loads, out.splitlines())
    assert code == 1
    assert [frame["part"] for frame in frames] == [{"time_s": 0.0}]
    assert (last["error"]["code"], "part" in last) == ("invalid_image", False)
    assert "cut off" in err
