from __future__ import annotations

import json
import re

import pytest
import tokenizers
import transformers

from florence2.scenes.text_rendering import LEXICON
from florence2.tasks import TASKS
from florence2.tasks.vocabulary import ADDED_TOKENS
from florence2.training.demo.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_two_builds_are_the_same_to_the_byte(folder, tmp_path):
    num_tokens = build_tokenizer(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert 1400 < num_tokens < 1800


def test_special_tokens_stand_where_bart_and_florence_have_them(tokenizer):
    assert [tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    mask, num_tokens = tokenizer.token_to_id("<mask>"), tokenizer.get_vocab_size()
    assert [tokenizer.token_to_id(token) for token in ADDED_TOKENS] == list(range(mask + 1, mask + 1025))
    assert tokenizer.token_to_id("<image>") == mask + 1025 == num_tokens - 1
    # Checked against the published order: <loc_0> follows the four od and ocr tokens, <and> is the last.
    assert tokenizer.token_to_id("<loc_0>") == mask + 5
    assert tokenizer.token_to_id("<and>") == mask + 1024


@pytest.mark.parametrize(
    "text",
    [
        "red circle<loc_0><loc_999>blue star",
        "  Été 漢字 \n 🙂 ~",
        "Locate red circle<and>star in the image.",
        "",
        "MAP Owl sun",
    ],
)
def test_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert ids[0] == 0
    assert ids[-1] == 2
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"<s>{text}</s>"


def test_template_words_are_single_tokens(tokenizer):
    assert tokenizer.encode("an orange heart and a large red circle on the left").tokens[1:-1] == [
        *("an", "Ġorange", "Ġheart", "Ġand", "Ġa", "Ġlarge", "Ġred", "Ġcircle", "Ġon", "Ġthe", "Ġleft")
    ]
    assert tokenizer.encode("moon<loc_7>").tokens[1:-1] == ["moon", "<loc_7>"]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.tag)
def test_prompts_have_one_token_per_word_and_mark(tokenizer, task):
    sentence = task.template.format(text="red circle", region="<loc_1><loc_2><loc_3><loc_4>")
    marked = re.sub(r"([,:.?]|<loc_\d>)", r" \1 ", sentence)
    spaces = len(re.findall(" <loc_1>", sentence))
    assert len(tokenizer.encode(sentence, add_special_tokens=False).ids) == len(marked.split()) + spaces


def test_printed_words_are_spelled(tokenizer):
    for word in LEXICON:
        for text in (word, word.title(), word.upper()):
            for spaced in (text, f" {text}"):
                assert len(tokenizer.encode(spaced, add_special_tokens=False).ids) > 1


def test_the_reference_reads_the_same_ids(folder, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    text = "red circle<loc_5><loc_999>a blue star and Été<and>"
    assert theirs(text).input_ids == tokenizer.encode(text).ids
    assert theirs.decode(theirs(text).input_ids) == f"<s>{text}</s>"
    assert len(theirs) == tokenizer.get_vocab_size()
    assert (theirs.bos_token_id, theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2, 3)
    assert theirs.image_token_id == tokenizer.token_to_id("<image>")
    assert {"<loc_0>", "<and>", "<image>"} <= set(theirs.all_special_tokens)


def test_the_reference_processor_takes_the_tokenizer(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    images = transformers.CLIPImageProcessor(size={"height": 192, "width": 192}, do_center_crop=False)
    images.image_seq_length = 37  # type: ignore[attr-defined]
    processor = transformers.Florence2Processor(images, tokenizer)
    from PIL import Image

    inputs = processor(images=Image.new("RGB", (50, 40)), text="<OD>", return_tensors="np")  # type: ignore[call-arg]
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(tokenizer.image_token_id) == 37
    assert tokenizer.decode(ids[-12:]).endswith("Locate the objects with category name in the image.</s>")


def test_settings_are_plain_json(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["image_token"] == "<image>"
    assert settings["add_prefix_space"] is False
