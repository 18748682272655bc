from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from florence2.errors import InvalidOption
from florence2.scenes.palette import COLOURS
from florence2.scenes.placement import overlap
from florence2.scenes.scene import SIZE_BANDS, SceneOptions, draw_scene
from florence2.scenes.shapes import KINDS, MAX_VERTICES, outlines
from florence2.scenes.text_rendering import FONTS, LEXICON

BUSY = SceneOptions(num_objects=(1, 8), num_words=(0, 3), max_word_degrees=8, number_rate=0.2)


def scenes(count, *, size=192, options=BUSY, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, size=size, options=options) for _ in range(count)]


def filled(outline, size):
    mask = Image.new("1", (size, size))
    ImageDraw.Draw(mask).polygon([(x - 0.5, y - 0.5) for x, y in outline], fill=1)
    return np.asarray(mask)


def test_the_same_seed_gives_the_same_scene():
    first, second = scenes(5, seed=3), scenes(5, seed=3)
    for one, other in zip(first, second, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert (one.objects, one.words, one.background) == (other.objects, other.words, other.background)
    assert first[0].image.tobytes() != scenes(1, seed=4)[0].image.tobytes()


@pytest.mark.parametrize("size", [96, 192, 400])
def test_everything_lies_inside_the_picture(size):
    for scene in scenes(20, size=size):
        assert scene.image.size == (size, size)
        assert scene.image.mode == "RGB"
        for thing in (*scene.objects, *scene.words):
            x1, y1, x2, y2 = thing.box
            assert 0 <= x1 < x2 <= size
            assert 0 <= y1 < y2 <= size


def test_numbers_of_things_follow_the_options():
    drawn = scenes(60, options=SceneOptions(num_objects=(2, 4), num_words=(1, 2)))
    assert {len(scene.objects) for scene in drawn} == {2, 3, 4}
    assert {len(scene.words) for scene in drawn} == {1, 2}
    crowded = scenes(30, options=SceneOptions(num_objects=(8, 8), num_words=(0, 0)))
    assert all(len(scene.objects) == 8 for scene in crowded)


def test_names_follow_the_options():
    options = SceneOptions(
        num_objects=(1, 3), num_words=(1, 1), kinds=("star", "moon"), colours=("red", "white"), lexicon=("owl",), textures=("plain",)
    )
    drawn = scenes(20, options=options)
    assert {thing.kind for scene in drawn for thing in scene.objects} == {"star", "moon"}
    assert {thing.colour for scene in drawn for thing in scene.objects} == {"red", "white"}
    assert {word.text for scene in drawn for word in scene.words} == {"owl", "Owl", "OWL"}
    assert all(scene.background.startswith("plain ") for scene in drawn)


def test_numbers_are_printed_when_asked_for():
    drawn = scenes(10, options=SceneOptions(num_objects=(0, 0), num_words=(1, 1), number_rate=1.0))
    assert all(word.text.isdigit() and int(word.text) < 100 for scene in drawn for word in scene.words)


def test_the_middle_of_a_visible_shape_has_its_colour():
    for scene in scenes(40, options=SceneOptions(num_objects=(1, 1), num_words=(0, 1))):
        thing = scene.objects[0]
        inside = np.asarray(scene.image)[filled(thing.polygon, 192)]
        assert np.abs(np.median(inside, axis=0) - COLOURS[thing.colour]).max() <= 12


def test_outside_of_the_boxes_there_is_no_shape():
    for scene in scenes(20, options=SceneOptions(num_objects=(1, 1), num_words=(0, 0), textures=("plain",))):
        pixels = np.asarray(scene.image).astype(int)
        x1, y1, x2, y2 = scene.objects[0].box
        rows, columns = np.mgrid[0:192, 0:192]
        outside = (columns + 1 <= x1) | (columns >= x2) | (rows + 1 <= y1) | (rows >= y2)
        background = pixels[outside]
        assert (background.max(axis=0) - background.min(axis=0)).max() <= 24
        differs = np.abs(pixels - np.median(background, axis=0)).max(axis=2) > 24
        found_rows, found_columns = np.nonzero(differs)
        found = [found_columns.min(), found_rows.min(), found_columns.max() + 1, found_rows.max() + 1]
        assert np.abs(np.array(found) - scene.objects[0].box).max() <= 2


def test_ink_fills_the_quad_of_a_word():
    options = SceneOptions(num_objects=(0, 0), num_words=(1, 1), max_word_degrees=8, textures=("plain",))
    for scene in scenes(20, size=384, options=options):
        word = scene.words[0]
        corners = np.array(word.quad).reshape(4, 2)
        assert corners[0][0] < corners[1][0]
        assert corners[0][1] < corners[3][1]
        assert (corners.min(axis=0).tolist(), corners.max(axis=0).tolist()) == ([*word.box[:2]], [*word.box[2:]])
        outward = (corners - corners.mean(axis=0)) / np.abs(corners - corners.mean(axis=0))
        inside, just_outside = filled(corners, 384), filled(corners + 6 * outward, 384) & ~filled(corners + 2 * outward, 384)
        pixels = np.asarray(scene.image.convert("L")).astype(int)
        assert np.ptp(np.percentile(pixels[inside], (5, 95))) > 45
        assert np.ptp(pixels[just_outside]) < 30


def test_capitals_are_as_high_as_asked_for():
    height = 20 / 192
    options = SceneOptions(num_objects=(0, 0), num_words=(1, 1), lexicon=("HILL",), cap_height=(height, height), fonts=FONTS)
    heights = [word.box[3] - word.box[1] for scene in scenes(40, options=options) for word in scene.words if word.text == "HILL"]
    assert heights
    assert all(abs(value - 20) <= 2 for value in heights)


def test_words_keep_clear_of_everything():
    for scene in scenes(40):
        for word in scene.words:
            others = [*scene.objects, *(other for other in scene.words if other is not word)]
            assert all(overlap(word.box, other.box) == 0 for other in others)


def test_no_shape_is_hidden_by_more_than_two_fifths():
    hidden = []
    for scene in scenes(40, options=SceneOptions(num_objects=(4, 8), num_words=(0, 0), max_overlap=0.4)):
        masks = [filled(thing.polygon, 192) for thing in scene.objects]
        for index, mask in enumerate(masks):
            above = np.any(masks[index + 1 :], axis=0) if masks[index + 1 :] else np.zeros_like(mask)
            hidden.append((mask & above).sum() / mask.sum())
    assert 0.1 < max(hidden) < 0.46


def test_shapes_stay_apart_without_overlap():
    for scene in scenes(20, options=SceneOptions(num_objects=(4, 6), num_words=(0, 0), max_overlap=0)):
        for index, thing in enumerate(scene.objects):
            assert all(overlap(thing.box, other.box) == 0 for other in scene.objects[index + 1 :])


def test_size_words_are_never_a_matter_of_one_pixel():
    seen = set()
    for scene in scenes(60):
        for thing in scene.objects:
            longer = max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) / 192
            low, high = SIZE_BANDS[thing.size_word]
            assert low - 1e-6 <= longer <= high + 1e-6
            assert 0.1 - 1e-6 <= longer <= 0.6 + 1e-6
            seen.add(thing.size_word)
    assert seen == set(SIZE_BANDS)


def test_twins_are_rare():
    labels = [[thing.label for thing in scene.objects] for scene in scenes(100, options=SceneOptions(num_objects=(4, 4), num_words=(0, 0)))]
    share = np.mean([len(set(each)) < len(each) for each in labels])
    assert share < 0.25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [-8.0, 0.0, 8.0])
def test_outlines_are_clockwise_and_alike(kind, degrees):
    fine, coarse = outlines(kind, degrees=degrees, stretch=1.05)
    assert len(coarse) <= MAX_VERTICES
    assert max(fine.max(axis=0) - fine.min(axis=0)) == pytest.approx(1.0)
    for outline in (fine, coarse):
        x, y = outline.T
        # With y downwards a positive shoelace sum means clockwise.
        assert float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) > 0
    painted, described = (filled(outline * 300 + 200, 400) for outline in (fine, coarse))
    assert (painted & described).sum() / (painted | described).sum() > 0.9
    assert np.linalg.norm(fine[0] - coarse[0]) < 0.05


def test_the_first_vertex_moves_little_when_a_shape_is_turned():
    for kind in KINDS:
        starts = np.array([outlines(kind, degrees=degrees)[1][0] for degrees in (-8, -1, 1, 8)])
        assert np.ptp(starts, axis=0).max() < 0.3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_objects", (3, 2)),
        ("num_words", (-1, 2)),
        ("object_size", (0.5, 0.1)),
        ("kinds", ("circle", "blob")),
        ("colours", ()),
        ("textures", ("tartan",)),
        ("fonts", ("Comic",)),
    ],
)
def test_impossible_options_are_refused_by_name(field, value):
    with pytest.raises(InvalidOption) as caught:
        SceneOptions(**{field: value})
    assert caught.value.field == field
    assert field in caught.value.message


def test_the_lexicon_is_short_plain_and_without_twins():
    assert len(set(LEXICON)) == len(LEXICON) >= 60
    assert all(3 <= len(word) <= 6 and word.isascii() and word.islower() for word in LEXICON)
