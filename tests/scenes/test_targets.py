from __future__ import annotations

import re

import numpy as np
from PIL import Image

from florence2.scenes.scene import Scene, SceneObject, SceneOptions, SceneWord, draw_scene
from florence2.scenes.targets import locations, make_targets, reading_order
from florence2.tasks import TASKS, expand_prompt

CIRCLE = SceneObject("circle", "red", "large", ((150.0, 60.0), (190.0, 100.0), (150.0, 140.0), (110.0, 100.0)), (110.0, 60.0, 190.0, 140.0))
STAR = SceneObject("star", "orange", "small", ((20.0, 10.0), (30.0, 30.0), (10.0, 30.0)), (10.0, 10.0, 30.0, 30.0))
TWIN = SceneObject("star", "orange", "small", ((60.0, 170.0), (70.0, 190.0), (50.0, 190.0)), (50.0, 170.0, 70.0, 190.0))
OWL = SceneWord("Owl", (100.0, 10.0, 140.0, 10.0, 140.0, 30.0, 100.0, 30.0), (100.0, 10.0, 140.0, 30.0))
MAP = SceneWord("MAP", (50.0, 16.0, 90.0, 16.0, 90.0, 36.0, 50.0, 36.0), (50.0, 16.0, 90.0, 36.0))
SUN = SceneWord("sun", (20.0, 150.0, 60.0, 150.0, 60.0, 164.0, 20.0, 164.0), (20.0, 150.0, 60.0, 164.0))


def scene(objects=(CIRCLE, STAR), words=(OWL, MAP, SUN)):
    return Scene(Image.new("RGB", (200, 200)), tuple(objects), tuple(words), "striped beige")


def answers(of):
    return {tag: [example.answer for example in examples] for tag, examples in make_targets(of, np.random.default_rng(0)).items()}


def test_every_task_has_a_target():
    given = make_targets(scene(), np.random.default_rng(0))
    assert list(given) == list(TASKS)
    assert len(given) == 15
    for tag, examples in given.items():
        assert examples
        assert all(example.tag == tag and example.prompt == tag + example.text for example in examples)


def test_captions_name_shapes_from_left_to_right():
    given = answers(scene())
    assert given["<CAPTION>"] == ["an orange star and a red circle"]
    assert given["<DETAILED_CAPTION>"] == [
        "a small orange star at the top left and a large red circle on the right, on a striped beige background"
    ]
    assert given["<MORE_DETAILED_CAPTION>"] == [
        "The picture shows two shapes on a striped beige background. There is a small orange star at the top left. "
        "There is a large red circle on the right. The word MAP is printed at the top. The word Owl is printed at the top. "
        "The word sun is printed at the bottom left."
    ]
    assert answers(scene([CIRCLE, STAR, TWIN]))["<CAPTION>"] == ["an orange star, an orange star and a red circle"]


def test_captions_without_shapes():
    assert answers(scene([], [OWL]))["<CAPTION>"] == ["a printed word"]
    assert answers(scene([]))["<CAPTION>"] == ["three printed words"]
    assert answers(scene([], []))["<CAPTION>"] == ["an empty background"]


def test_detection_answers():
    given = answers(scene())
    star, circle = "<loc_50><loc_50><loc_150><loc_150>", "<loc_550><loc_300><loc_950><loc_700>"
    assert given["<OD>"] == [f"orange star{star}red circle{circle}"]
    assert given["<DENSE_REGION_CAPTION>"] == [f"small orange star{star}large red circle{circle}"]
    assert given["<REGION_PROPOSAL>"][0].startswith(star + "<loc_100><loc_750><loc_300><loc_820>")
    assert given["<REGION_PROPOSAL>"][0].count("<loc_") == 4 * 5


def test_words_are_read_in_lines_and_located_from_left_to_right():
    given = answers(scene())
    assert given["<OCR>"] == ["MAP Owl sun"]
    assert re.findall("[A-Za-z]{3,}", re.sub("<.*?>", " ", given["<OCR_WITH_REGION>"][0])) == ["sun", "MAP", "Owl"]
    assert given["<OCR_WITH_REGION>"][0].startswith("sun<loc_100><loc_750><loc_300><loc_750><loc_300><loc_820><loc_100><loc_820>")
    assert given["<REGION_TO_OCR>"] == ["sun", "MAP", "Owl"]


def test_nothing_printed_and_nothing_drawn_are_empty_answers():
    given = answers(scene([], []))
    for tag in ("<OCR>", "<OCR_WITH_REGION>", "<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>"):
        assert given[tag] == [""]
    for tag in ("<REGION_TO_OCR>", "<REGION_TO_CATEGORY>", "<OPEN_VOCABULARY_DETECTION>", "<CAPTION_TO_PHRASE_GROUNDING>"):
        assert given[tag] == []


def test_regions_are_asked_for_where_the_thing_is():
    rng = np.random.default_rng(1)
    exact = 0
    for _ in range(40):
        for tag, answer in (("<REGION_TO_CATEGORY>", "orange star"), ("<REGION_TO_DESCRIPTION>", "a small orange star")):
            example = make_targets(scene(), rng)[tag][0]
            assert example.answer == answer + example.text  # the region again, as published checkpoints write it
            region = [int(number) / 5 for number in re.findall(r"<loc_(\d+)>", example.text)]
            assert len(region) == 4
            assert np.abs(np.array(region) - STAR.box).max() <= 0.06 * 20 + 0.2
            exact += example.text == locations(STAR.box, (200, 200))
    assert 10 < exact < 70


def test_polygons_start_where_the_shape_starts():
    given = answers(scene())
    outline = "<loc_100><loc_50><loc_150><loc_150><loc_50><loc_150>"
    assert given["<REGION_TO_SEGMENTATION>"][0] == outline
    assert given["<REFERRING_EXPRESSION_SEGMENTATION>"][0] == outline


def test_only_shapes_that_a_phrase_singles_out_are_referred_to():
    rng = np.random.default_rng(2)
    for _ in range(30):
        texts = [example.text for example in make_targets(scene([CIRCLE, STAR, TWIN]), rng)["<REFERRING_EXPRESSION_SEGMENTATION>"]]
        assert len(texts) == 1
        assert texts[0] in ("red circle", "a red circle", "the red circle", "the circle")


def test_grounding_answers_the_phrases_of_its_caption_in_order():
    rng = np.random.default_rng(3)
    captions = set()
    for _ in range(60):
        example = make_targets(scene(), rng)["<CAPTION_TO_PHRASE_GROUNDING>"][0]
        phrases = re.split(", | and ", example.text)
        found = re.findall(r"([^<]+)((?:<loc_\d+>){4})", example.answer)
        assert [phrase for phrase, _ in found] == phrases
        for phrase, box in found:
            assert box == locations((STAR if "star" in phrase else CIRCLE).box, (200, 200))
        captions.add(example.text)
    assert captions == {"an orange star and a red circle", "a red circle and an orange star", "an orange star", "a red circle"}


def test_open_vocabulary_finds_all_of_a_class_none_of_another_and_two_at_once():
    rng = np.random.default_rng(4)
    seen = {}
    for _ in range(300):
        example = make_targets(scene([CIRCLE, STAR, TWIN]), rng)["<OPEN_VOCABULARY_DETECTION>"][0]
        seen[example.text] = example.answer
    both = "".join("orange star" + locations(thing.box, (200, 200)) for thing in (STAR, TWIN))
    assert seen["orange star"] == both
    assert seen["star"] == both.replace("orange ", "")
    assert seen["orange star<and>red circle"] == both + "red circle" + locations(CIRCLE.box, (200, 200))
    absent = [text for text in seen if "<and>" not in text and text not in ("orange star", "star", "red circle", "circle")]
    assert absent
    assert all(seen[text] == "" for text in absent)


def test_locations_are_floored_thousandths_within_bounds():
    assert locations((0.0, 0.0, 199.99, 100.0), (200, 100)) == "<loc_0><loc_0><loc_999><loc_999>"
    assert locations((-3.0, 0.999, 10.0, 1e6), (1000, 10)) == "<loc_0><loc_99><loc_10><loc_999>"


def test_reading_order_goes_line_by_line():
    assert [word.text for word in reading_order([SUN, OWL, MAP])] == ["MAP", "Owl", "sun"]
    assert reading_order([]) == []


def test_drawn_scenes_have_locations_in_groups_of_the_right_size():
    rng = np.random.default_rng(6)
    options = SceneOptions(num_objects=(1, 8), num_words=(0, 3), max_word_degrees=8)
    sizes = {"<OD>": 4, "<DENSE_REGION_CAPTION>": 4, "<OCR_WITH_REGION>": 8, "<CAPTION_TO_PHRASE_GROUNDING>": 4}
    for _ in range(30):
        given = make_targets(draw_scene(rng, options=options), rng)
        for tag, size in sizes.items():
            for answer in (example.answer for example in given[tag]):
                assert re.fullmatch(rf"([^<]+(?:<loc_\d{{1,3}}>){{{size}}})*", answer)
        firsts = [int(number) for number in re.findall(r"[a-z]<loc_(\d+)>", given["<OD>"][0].answer)]
        assert firsts == sorted(firsts)
        for example in given["<REGION_TO_SEGMENTATION>"]:
            assert re.fullmatch(r"(?:<loc_\d{1,3}><loc_\d{1,3}>){3,12}", example.answer)


def test_sentences_come_from_the_table_of_tasks():
    given = make_targets(scene(), np.random.default_rng(0))
    assert given["<OD>"][0].sentence == "Locate the objects with category name in the image."
    region = given["<REGION_TO_CATEGORY>"][0]
    assert region.sentence == f"What is the region {region.text}?"
    for tag in TASKS:
        for example in given[tag]:
            assert example.sentence == expand_prompt(example.prompt)
