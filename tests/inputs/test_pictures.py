"""Pages of documents, frames of videos and animations, each a picture of its own."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence2.errors import InvalidImage, InvalidOption
from florence2.image_files import tiff
from florence2.inputs import documents, page_renderer, urls, videos
from florence2.inputs.find import find_inputs
from florence2.inputs.input import Input, Part
from florence2.inputs.pictures import Picture, read, read_pictures
from florence2.inputs.selection import Selection
from tests.inputs.conftest import shade_of, shades

Make = Callable[..., Path]
DEFAULT = Selection()


def pictures(*paths: Path, selection: Selection = DEFAULT, skip: Callable[[str], bool] | None = None) -> list[Picture]:
    inputs = find_inputs([str(path) for path in paths], [], lambda _: None)
    return [future.result() for future in read_pictures(inputs, selection, skip=skip)]


def parts(*paths: Path, **selection: str) -> list[tuple[str, int]]:
    """What stands behind each name, with the shade of the picture."""
    return [
        (image.id.rpartition("#")[2], shade_of(pixels(content))) for image, content in pictures(*paths, selection=Selection(**selection))
    ]


def pixels(content: Image.Image | InvalidImage) -> Image.Image:
    assert isinstance(content, Image.Image), content
    return content


def error_of(path: Path, **selection: str) -> str:
    """What is wrong with the last picture of a file."""
    image, content = pictures(path, selection=Selection(**selection))[-1]
    assert isinstance(content, InvalidImage)
    assert image.part is None
    return content.message


# Selections


def test_pages_of_a_selection() -> None:
    assert Selection().page_numbers(3) == Selection("all").page_numbers(3) == [1, 2, 3]
    assert Selection("3,1-2,2").page_numbers(9) == [1, 2, 3]
    assert Selection("-2, 5-").page_numbers(6) == [1, 2, 5, 6]
    assert Selection("4-").page_numbers(3) == []
    assert Selection("1-999999999").page_numbers(2) == [1, 2]


@pytest.mark.parametrize("wrong", ["", "0", "3-1", "a", "1,,2", "-", "1.5", "-0"])
def test_pages_that_are_none(wrong: str) -> None:
    with pytest.raises(InvalidOption, match="pages must be"):
        Selection(wrong)


@pytest.mark.parametrize("wrong", ["", "2", "0s", "0f", "-1s", "1.5f", "s", "nan s", "1e9s"])
def test_steps_that_are_none(wrong: str) -> None:
    with pytest.raises(InvalidOption, match="every must be"):
        Selection(every=wrong)


def test_frames_are_the_first_or_all() -> None:
    with pytest.raises(InvalidOption, match="first or all"):
        Selection(frames="some")


# Documents


def test_pages_of_a_document(make_animation: Make) -> None:
    path = make_animation("report.pdf")
    assert parts(path) == [("page=1", 0), ("page=2", 1), ("page=3", 2)]
    assert parts(path, pages="2-") == [("page=2", 1), ("page=3", 2)]
    (first, *_) = pictures(path)
    assert (first.image.name, first.image.relative_name, first.image.stem) == (str(path), "report-p001.pdf", "report-p001")
    assert first.image.path == path
    assert shade_of(read(find_inputs([str(path)], [], print)[0])) == 0


@pytest.mark.parametrize("size", [(1, 1), (10, 10), (612, 792), (14400, 14400), (3, 200000)])
def test_pages_of_any_size_have_a_bounded_number_of_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    import pypdfium2

    document = pypdfium2.PdfDocument.new()
    document.new_page(*size).close()
    document.save(tmp_path / "page.pdf")
    document.close()
    ((_, content),) = pictures(tmp_path / "page.pdf")
    width, height = pixels(content).size
    assert max(width, height) >= 1000
    assert width * height <= page_renderer.MAX_PAGE_PIXELS


def test_documents_that_cannot_be_read(make_animation: Make, tmp_path: Path) -> None:
    whole = make_animation("whole.pdf").read_bytes()
    (tmp_path / "cut.pdf").write_bytes(whole[:200])
    (tmp_path / "none.pdf").write_bytes(b"%PDF-1.7\n%%EOF")
    assert "damaged" in error_of(tmp_path / "cut.pdf")
    assert "damaged" in error_of(tmp_path / "none.pdf")
    assert "it has 3 pages" in error_of(tmp_path / "whole.pdf", pages="4-9")
    (tmp_path / "whole.pdf").unlink()
    assert "there is no file" in error_of(tmp_path / "whole.pdf")


# An empty page behind a password: RC4 with 40 bits, as qpdf and old printers' drivers write it.
_LOCKED = b"""%%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>> endobj
4 0 obj <</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>> endobj
trailer <</Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]/Size 5>>
""" % (b"11" * 32, b"22" * 32)


def write_document(path: Path, objects: Sequence[str]) -> Path:
    """A PDF file of these objects, the first its catalogue; readers find objects by themselves where there is no table of them."""
    lines = [f"{number} 0 obj{content}endobj" for number, content in enumerate(objects, 1)]
    path.write_text("\n".join(["%PDF-1.7", *lines, "trailer<</Root 1 0 R>>"]))
    return path


@pytest.mark.slow
def test_a_page_that_takes_for_ever_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms in forms: each draws the next one twenty times, and the last one draws a line."""
    form = "<</Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</XObject<</F {} 0 R>>>>/Length 120>>stream\n"
    forms = [form.format(inner) + "/F Do " * 20 + "\nendstream " for inner in range(7, 19)]
    last = "<</Type/XObject/Subtype/Form/BBox[0 0 99 99]/Length 14>>stream\n0 0 m 9 9 l S \nendstream "
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]{more}>>"
    used = "/Resources<</XObject<</F 6 0 R>>>>/Contents 5 0 R"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2>>",
        page.format(more=used), page.format(more=""), "<</Length 5>>stream\n/F Do\nendstream ", *forms, last,
    ]  # fmt: skip
    monkeypatch.setattr(documents, "PAGE_TIMEOUT_S", 1.5)
    started = time.monotonic()
    (_, bad), (image, good) = pictures(write_document(tmp_path / "a.pdf", objects))
    assert isinstance(bad, InvalidImage)
    assert "page 1 takes" in bad.message
    assert image.part == Part("page", 2)
    assert pixels(good).size == (1000, 1000)
    assert time.monotonic() - started < 15


def test_pages_that_are_claimed_end(tmp_path: Path) -> None:
    objects = ["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 90000>>", "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"]
    (_, page), *others, (image, error) = pictures(write_document(tmp_path / "a.pdf", objects))
    assert isinstance(page, Image.Image)
    assert len(others) == 100
    assert (image.part, "100 pages in a row" in str(error)) == (None, True)


def test_an_encrypted_document(tmp_path: Path) -> None:
    (tmp_path / "locked.pdf").write_bytes(_LOCKED)
    assert "it is encrypted; save it without a password" in error_of(tmp_path / "locked.pdf")


# Videos


CODECS = {"a.mp4": "mpeg4", "a.mkv": "mpeg4", "a.webm": "libvpx", "a.avi": "mjpeg", "a.mov": "mjpeg", "a.ts": "mpeg2video"}


@pytest.mark.parametrize(("name", "codec"), list(CODECS.items()))
def test_frames_of_videos(make_video: Make, name: str, codec: str) -> None:
    path = make_video(name, 12, codec=codec)
    assert parts(path, every="0.5s") == [("t=0.000", 0), ("t=0.500", 5), ("t=1.000", 10)]
    assert parts(path) == [("t=0.000", 0), ("t=1.000", 10)]
    assert parts(path, every="5f") == [("frame=0", 0), ("frame=5", 5), ("frame=10", 10)]
    assert len(parts(path, frames="all")) == 12
    assert parts(path, every="100s") == [("t=0.000", 0)]


def test_a_frame_that_is_shown_for_long_comes_once(make_video: Make) -> None:
    path = make_video("slow.mp4", 3)
    assert parts(path, every="0.02s") == [("t=0.000", 0), ("t=0.100", 1), ("t=0.200", 2)]


@pytest.mark.parametrize("gop", [10, 10000])
def test_frames_far_apart_are_sought(make_video: Make, monkeypatch: pytest.MonkeyPatch, gop: int) -> None:
    monkeypatch.setattr(videos, "SEEK_GAP_S", 1)
    path = make_video("long.mp4", 12, each=10, gop=gop)
    decoded = 0
    frames = videos.Video._frames

    def counted(video: videos.Video) -> Iterator[object]:
        nonlocal decoded
        for frame in frames(video):
            decoded += 1
            yield frame

    monkeypatch.setattr(videos.Video, "_frames", counted)
    assert parts(path, every="4s") == [("t=0.000", 0), ("t=4.000", 4), ("t=8.000", 8)]
    assert (decoded < 60) == (gop == 10)  # with one key frame all are decoded, the first of them at most twice
    assert decoded <= 130


def test_a_run_that_goes_on_decodes_what_is_missing(make_video: Make, make_animation: Make) -> None:
    video, document = make_video("a.mp4", 12, each=10), make_animation("a.pdf")
    all_ids = [image.id for image, _ in pictures(video, document)]
    done = {*all_ids[:5], all_ids[7], all_ids[-2]}
    assert [image.id for image, _ in pictures(video, document, skip=done.__contains__)] == [one for one in all_ids if one not in done]
    assert pictures(video, document, skip=lambda _: True) == []


def test_a_phone_held_upright(make_video: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("phone.mp4", 1)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # where the matrix stands in a version 0 header
    quarter = b"".join(number.to_bytes(4, "big", signed=True) for number in (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    content[start : start + 36] = quarter
    path.write_bytes(content)
    ((_, picture),) = pictures(path)
    assert pixels(picture).size == (48, 64)


def test_videos_that_cannot_be_read(make_video: Make, tmp_path: Path) -> None:
    import av

    whole = make_video("whole.mp4", 12, each=10, movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    *frames, (image, error) = pictures(tmp_path / "cut.mp4")
    assert 2 < len(frames) < 12
    assert all(isinstance(content, Image.Image) for _, content in frames)
    assert (image.id, "cut off" in str(error), "12.0 s long" in str(error)) == (str(tmp_path / "cut.mp4"), True, True)
    (tmp_path / "head.mp4").write_bytes(whole[:100])
    assert "damaged or cut off" in error_of(tmp_path / "head.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "it has sound and no pictures" in error_of(tmp_path / "sound.mp4")


def test_a_codec_that_is_not_known(make_video: Make, tmp_path: Path) -> None:
    (tmp_path / "odd.mkv").write_bytes(make_video("a.mkv").read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_UNHEARD_OF_YET"[:15]))
    assert "in a codec that is not read here" in error_of(tmp_path / "odd.mkv")


def test_frames_of_too_many_pixels_and_lengths_that_cannot_be(make_video: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("a.mp4", 12)
    with monkeypatch.context() as patch:
        patch.setattr(videos, "MAX_PIXELS", 64 * 48 - 1)
        assert "no frame of the video can be decoded" in error_of(path)
    monkeypatch.setattr(videos, "_LONGEST_S", 1)
    assert len(parts(path, every="0.5s")) == 3
    assert pictures(path, skip=lambda _: True) == []


@pytest.mark.parametrize("seed", range(3))
def test_damage_of_any_kind_is_told(make_video: Make, make_animation: Make, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for whole in (make_video("a.mp4"), make_video("a.ts", codec="mpeg2video"), make_video("a.mkv"), make_animation("a.pdf")):
        for _ in range(20):
            content = bytearray(whole.read_bytes())
            for _ in range(rng.choice([1, 10, 100])):
                content[rng.randrange(len(content))] = rng.randrange(256)
            (tmp_path / f"damaged{whole.suffix}").write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
            for _, picture in pictures(tmp_path / f"damaged{whole.suffix}"):
                assert isinstance(picture, (Image.Image, InvalidImage))


def test_playlists_open_no_other_file(make_video: Make, tmp_path: Path) -> None:
    video = make_video("secret.ts", codec="mpeg2video")
    for name, content in (("a.mp4", f"#EXTM3U\n#EXTINF:1,\n{video}\n"), ("b.mp4", f"ffconcat version 1.0\nfile {video.name}\n")):
        (tmp_path / name).write_text(content)
        assert "not an image" in error_of(tmp_path / name)


# Pictures in parts


def test_pages_of_a_tiff(make_animation: Make) -> None:
    path = make_animation("scan.tif")
    assert parts(path) == [(str(path), 0)]
    assert parts(path, pages="all") == [("page=1", 0), ("page=2", 1), ("page=3", 2)]
    assert parts(path, pages="2") == [("page=2", 1)]
    assert "it has 3 pages" in error_of(path, pages="7")
    assert parts(make_animation("one.tif", 1), pages="all")[0][0].endswith("one.tif")


def test_the_chain_of_pages_is_gone_through_once(make_animation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    whole = tiff._directory
    monkeypatch.setattr(tiff, "_directory", lambda data, layout, position: read.append(position) or whole(data, layout, position))
    assert len(parts(make_animation("a.tiff", 12), pages="all")) == 12
    assert len(read) == 24  # to find each, and to read it


def test_smaller_copies_in_a_tiff_are_no_pages(make_animation: Make, tmp_path: Path) -> None:
    content = bytearray(make_animation("map.tif", 2).read_bytes())
    second = int.from_bytes(content[4:8], "little")
    second = int.from_bytes(content[second + 2 + 12 * content[second] : second + 6 + 12 * content[second]], "little")
    content[second + 2 : second + 14] = b"\xfe\0\4\0\1\0\0\0\1\0\0\0"  # its first tag becomes NewSubfileType: a smaller copy
    (tmp_path / "map.tif").write_bytes(content)
    assert parts(tmp_path / "map.tif", pages="all") == [(str(tmp_path / "map.tif"), 0)]


def test_pages_that_lead_back_end(make_animation: Make, tmp_path: Path) -> None:
    content = bytearray(make_animation("loop.tif", 1).read_bytes())
    first = int.from_bytes(content[4:8], "little")
    content[first + 2 + 12 * content[first] :][:4] = b""
    content[first + 2 + 12 * content[first] : first + 6 + 12 * content[first]] = first.to_bytes(4, "little")
    (tmp_path / "loop.tif").write_bytes(content)
    assert len(pictures(tmp_path / "loop.tif", selection=Selection("all"))) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.avif"])
def test_frames_of_animations(make_animation: Make, name: str) -> None:
    path = make_animation(name, **({"lossless": True} if name == "a.webp" else {}))
    assert parts(path) == [(str(path), 0)]
    assert parts(path, frames="all") == [("frame=0", 0), ("frame=1", 1), ("frame=2", 2)]
    assert parts(make_animation(f"one{path.suffix}", 1), frames="all")[0][0].endswith(path.suffix)


def test_a_page_that_is_broken_leaves_the_others(make_animation: Make, tmp_path: Path) -> None:
    content = bytearray(make_animation("scan.tif", 3, compression="tiff_lzw").read_bytes())
    second = int.from_bytes(content[4:8], "little")
    second = int.from_bytes(content[second + 2 + 12 * content[second] : second + 6 + 12 * content[second]], "little")
    content[second - 60 : second] = b"\xff" * 60
    (tmp_path / "scan.tif").write_bytes(content)
    found = pictures(tmp_path / "scan.tif", selection=Selection("all"))
    assert [isinstance(content, Image.Image) for _, content in found] == [True, False, True]
    assert [image.id.rpartition("#")[2] for image, _ in found] == ["page=1", "page=2", "page=3"]


def test_which_inputs_are_one_picture(make_animation: Make, tmp_path: Path) -> None:
    shades(1)[0].save(tmp_path / "a.jpg")
    paths = [tmp_path / "a.jpg", make_animation("a.tif"), make_animation("a.gif"), make_animation("a.pdf"), tmp_path / "gone.pdf"]
    inputs = find_inputs([*map(str, paths), "https://example.org/a"], [], lambda _: None)
    assert [Selection().is_one(one) for one in inputs] == [True, True, True, False, True, True]
    assert [Selection("all").is_one(one) for one in inputs] == [True, False, True, False, True, True]
    assert [Selection(frames="all").is_one(one) for one in inputs] == [True, True, False, False, True, True]


# All together


def test_documents_behind_urls(make_animation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "https://example.org/report?x=1": make_animation("a.pdf").read_bytes(),
        "https://example.org/a.gif": make_animation("a.gif").read_bytes(),
    }
    monkeypatch.setattr(urls, "fetch", content.__getitem__)
    inputs = find_inputs(list(content), [], lambda _: None)
    found = [future.result().image for future in read_pictures(inputs, Selection())]
    assert [image.id.removeprefix("https://example.org/") for image in found] == [
        *(f"report?x=1#page={page}" for page in (1, 2, 3)),
        "a.gif",
    ]
    assert [image.relative_name for image in found] == ["report-p001", "report-p002", "report-p003", "a.gif"]
    done = {image.id for image in found}
    assert list(read_pictures(inputs, Selection(), skip=done.__contains__)) == []


def test_a_url_that_does_not_answer_delays_nothing_before_it(monkeypatch: pytest.MonkeyPatch, make_animation: Make) -> None:
    answer: Future[bytes] = Future()
    monkeypatch.setattr(urls, "fetch", lambda _: answer.result())
    inputs = find_inputs([str(make_animation("a.gif")), "https://example.org/a"], [], lambda _: None)
    first, second = [next(futures) for futures in [read_pictures(inputs, Selection())] for _ in range(2)]
    assert isinstance(first.result().content, Image.Image)
    assert not second.done()
    answer.set_result(b"")
    assert "it holds nothing" in str(second.result().content)


def test_pictures_that_are_done_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, picture in enumerate(shades(3)):
        picture.save(tmp_path / f"{index}.png")
    inputs = find_inputs([str(tmp_path)], [], lambda _: None)
    for path in tmp_path.iterdir():
        path.unlink()
    done = {one.id for one in inputs[:2]}
    ((image, content),) = [future.result() for future in read_pictures(inputs, Selection("all", "all"), skip=done.__contains__)]
    assert image == inputs[2]
    assert "there is no file" in str(content) or "No such file" in str(content)


@pytest.mark.parametrize(("name", "package", "extra"), [("a.pdf", "pypdfium2", "pdf"), ("a.mp4", "av", "video")])
def test_without_the_extra_the_message_names_it(
    make_animation: Make, make_video: Make, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    path = make_animation(name) if extra == "pdf" else make_video(name)
    hidden: ModuleType | None = None
    monkeypatch.setitem(sys.modules, package, hidden)  # type: ignore[arg-type]
    assert f"pip install 'florence2-engine[{extra}]'" in error_of(path)
    monkeypatch.setattr(urls, "fetch", lambda _: path.read_bytes())
    (future,) = read_pictures([Input("https://example.org/a", "url")], Selection())
    assert f"pip install 'florence2-engine[{extra}]'" in str(future.result().content)
    notices: list[str] = []
    shades(1)[0].save(path.parent / "a.png")
    assert len(find_inputs([str(path.parent)], [], notices.append)) == 1
    assert f"extra '{extra}'" in notices[0]


def test_memory_holds_few_pictures(make_animation: Make) -> None:
    """Each picture is read when the one before it is taken: of ten documents at most the first pages of five are there."""
    inputs = find_inputs([str(make_animation("a.pdf", 9))] * 10, [], lambda _: None)
    rendered = 0
    page = documents.Document.page

    def counted(document: documents.Document, number: int) -> Image.Image:
        nonlocal rendered
        rendered += 1
        return page(document, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents.Document, "page", counted)
        reading = read_pictures(inputs, Selection(), num_ahead=4)
        ids = [next(reading).result().image.id for _ in range(20)]
        assert rendered <= 20 + 6
    assert all(before != after for before, after in pairwise(ids))
