"""Pictures that are linked, copied, or written anew so that every reader reads them upright."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from PIL import Image, ImageChops

from florence2.datasets.writers import FORMATS, WriteOptions
from florence2.images import read_image
from tests.datasets.writers.labelled_sets import contents, labelled_set

write = FORMATS["coco"]


def only_file(folder, pictures, **options):
    written = write(labelled_set(pictures), folder, WriteOptions(**options))
    (file,) = (path for path in (folder / "train").rglob("*") if path.suffix != ".json" and not path.is_dir())
    return file, written


def test_a_link_is_the_same_file(empty, make_picture):
    picture = make_picture()
    file, _ = only_file(empty, [picture])
    assert file.samefile(picture.file)
    assert not file.is_symlink()


def test_a_copy_is_a_file_of_its_own_that_may_be_changed(empty, make_picture):
    picture = make_picture()
    picture.file.chmod(0o400)
    file, _ = only_file(empty, [picture], images="copy")
    assert not file.samefile(picture.file)
    assert file.read_bytes() == picture.file.read_bytes()
    assert file.stat().st_mode & 0o200


def test_a_jpeg_without_its_end_marker_is_copied_because_older_ultralytics_write_it_anew_in_place(empty, make_picture):
    picture = make_picture("a.jpg", form="JPEG")
    picture.file.write_bytes(picture.file.read_bytes() + b"of a phone")
    file, written = only_file(empty, [picture])
    assert not file.samefile(picture.file)
    assert file.read_bytes() == picture.file.read_bytes()
    assert written.notices == ()


def test_from_another_file_system_a_link_is_symbolic(empty, make_picture, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.EXDEV))
    picture = make_picture()
    file, written = only_file(empty, [picture], home=empty.parent / "elsewhere/coco")
    assert os.readlink(file) == str(picture.file)
    assert written.notices[0].startswith("1 pictures lie on another file system and are linked symbolically")


def test_a_symbolic_link_to_what_lies_beside_the_data_set_moves_with_it(tmp_path, empty, make_picture, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.EXDEV))
    file, _ = only_file(empty, [make_picture("sub/a.png")], home=tmp_path / "coco")
    assert os.readlink(file) == "../../../originals/0.png"


def test_without_any_links_a_copy_is_made(empty, make_picture, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    monkeypatch.setattr(os, "symlink", refusing(errno.EPERM))
    picture = make_picture()
    file, _ = only_file(empty, [picture])
    assert file.read_bytes() == picture.file.read_bytes()


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_turned_picture_is_written_upright(empty, make_picture, orientation):
    picture = make_picture("a.jpg", form="JPEG", orientation=orientation)
    file, written = only_file(empty, [picture])
    with Image.open(file) as upright:
        assert upright.size == picture.size
        assert upright.getexif().get(0x0112, 1) == 1
        difference = ImageChops.difference(upright, read_image(picture.file))
    assert np.asarray(difference).max() < 30  # of the second JPEG compression
    assert written.notices[0].startswith("1 pictures were written anew, upright")


@pytest.mark.parametrize(
    ("form", "expected"), [("TIFF", "a.png"), ("GIF", "a.png"), ("AVIF", "a.jpg"), ("WEBP", "a.webp"), ("BMP", "a.bmp")]
)
def test_what_readers_do_not_read_is_converted(empty, make_picture, form, expected):
    file, written = only_file(empty, [make_picture(f"a.{form.lower()}", form=form)])
    assert file.name == expected
    assert len(written.notices) == (form not in ("WEBP", "BMP"))
    with Image.open(file) as image:
        assert image.size == (64, 48)


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [("A.JPG", "JPEG", "A.jpg"), ("a.jpeg", "JPEG", "a.jpeg"), ("a.heic", "JPEG", "a.jpg"), ("a", "PNG", "a.png"), (".x", "PNG", ".x.png")],
)
def test_the_ending_tells_the_format_in_small_letters(empty, make_picture, name, form, expected):
    assert only_file(empty, [make_picture(name, form=form)])[0].name == expected


@pytest.mark.parametrize("images", ["link", "leave"])
def test_a_turned_heic_picture_has_the_size_that_it_was_labelled_in(empty, make_picture, images):
    written = write(labelled_set([make_picture("a.heic", form="HEIC", orientation=6)]), empty, WriteOptions(images=images))
    assert (written.num_pictures, written.problems) == (1, ())


def test_a_file_that_is_no_picture_any_more_is_listed(empty, make_picture):
    pictures = [make_picture(), make_picture("b.png")]
    pictures[1].file.write_bytes(b"%PDF-1.7")
    (problem,) = write(labelled_set(pictures), empty, WriteOptions()).problems
    assert "is no picture any more: it is a PDF document" in problem.message


def test_pictures_that_are_left_are_named_by_their_paths(empty, make_picture):
    picture = make_picture("a.jpg", form="JPEG", orientation=6)
    written = write(labelled_set([picture]), empty, WriteOptions(images="leave"))
    assert str(picture.file).encode() in contents(empty)["train/_annotations.coco.json"]
    assert sorted(contents(empty)) == ["train/_annotations.coco.json"]
    assert "labels are those of the upright picture" in written.notices[0]


def test_a_name_that_is_a_folder_s_already_is_listed(empty, make_picture):
    written = write(labelled_set([make_picture("a.png/b.png"), make_picture("a.png")]), empty, WriteOptions())
    (problem,) = written.problems
    assert "its name in the data set is taken" in problem.message


def test_an_original_is_never_written_through_its_link(empty, make_picture, monkeypatch):
    first, second = make_picture("a.png"), make_picture("a.png", form="JPEG")
    kept = first.file.read_bytes()
    monkeypatch.setattr(os, "link", refusing(errno.EXDEV))
    write(labelled_set([first, second, first]), empty, WriteOptions())
    assert first.file.read_bytes() == kept


def refusing(number):
    """A function of ``os`` that fails."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_path_that_is_no_text_is_listed_where_pictures_are_left(empty, make_picture):
    pictures = [make_picture(), make_picture("half\udcff.png", file_name="half\udcff.png")]
    (problem,) = write(labelled_set(pictures), empty, WriteOptions(images="leave")).problems
    assert "is no Unicode text" in problem.message
