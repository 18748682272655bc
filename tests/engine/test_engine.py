"""The engine as callers use it, with a tiny random checkpoint: options, checks, futures, closing."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import florence2
from fixtures.checkpoints import reference_model, write_checkpoint
from florence2.engine import engine as engine_module
from florence2.engine.engine import Engine
from florence2.errors import (
    EngineClosed,
    EngineFailed,
    InvalidImage,
    InvalidOption,
    InvalidPrompt,
    InvalidRegion,
    ModelNotFound,
    PromptTooLong,
    UnknownTask,
)
from florence2.model.cpu.packed import has_bf16_products
from florence2.tasks import Tokenizer, parse_prompt
from florence2.tasks import prompt as prompt_module

SHORT = 12


def test_a_result_has_everything(engine: Engine, image: Image.Image) -> None:
    result = engine.run(image, "<OD>", max_new_tokens=SHORT, scores=True)
    assert result.task == "<OD>"
    assert result.image_size == (70, 50)
    assert 2 <= len(result.token_ids) <= SHORT
    assert result.token_ids[0] == 0
    assert result.token_ids[-1] == 2
    assert result.finish_reason in ("stop", "length")
    assert result.log_probability is not None
    assert result.log_probability < 0
    assert result.scores is not None
    assert len(result.scores) == len(result.boxes) == len(result.labels)
    assert set(result.to_dict()) == {"<OD>"}


def test_the_checkpoints_defaults_hold_and_requests_override_them(folder: Path, tmp_path: Path, image: Image.Image) -> None:
    changed = {"num_beams": 2, "max_new_tokens": 5, "no_repeat_ngram_size": 1}
    other = write_checkpoint(tmp_path / "other", generation=changed)
    with florence2.load(other, device="cpu", precision="fp32") as engine:
        by_default = engine.run(image, "<CAPTION>")
        asked = engine.run(image, "<CAPTION>", num_beams=2, max_new_tokens=5, no_repeat_ngram_size=1)
        nothing = engine.run(image, "<CAPTION>", num_beams=None, max_new_tokens=None, scores=None)
        longer = engine.run(image, "<CAPTION>", max_new_tokens=9, no_repeat_ngram_size=0)
    assert by_default == asked == nothing
    assert len(by_default.token_ids) <= 5
    assert len(set(by_default.token_ids[:-1])) == len(by_default.token_ids) - 1  # no token twice
    assert len(longer.token_ids) > 5


def test_without_a_limit_answers_may_fill_the_positions(engine: Engine, image: Image.Image) -> None:
    assert engine.checkpoint.generation.max_new_tokens is None
    assert engine.max_answer_tokens == 160
    result = engine.run(image, "<CAPTION>", num_beams=1, no_repeat_ngram_size=0)
    assert (len(result.token_ids), result.finish_reason) == (160, "length")
    with pytest.raises(InvalidOption, match="at most 160") as caught:
        engine.run(image, "<CAPTION>", max_new_tokens=161)
    assert caught.value.field == "max_new_tokens"


def test_every_kind_of_image_gives_the_same_answer(engine: Engine, image: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    image.save(path)
    expected = engine.run(image, "<CAPTION>", max_new_tokens=SHORT)
    for given in (path, str(path), path.read_bytes(), np.asarray(image)):
        assert engine.run(given, "<CAPTION>", max_new_tokens=SHORT) == expected


def test_a_result_draws_on_what_it_was_asked_about(engine: Engine, image: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    image.save(path)
    for given in (path, str(path), path.read_bytes(), np.asarray(image), image):
        result = engine.run(given, "<OD>", max_new_tokens=SHORT)
        assert np.array_equal(np.asarray(result.annotate()), np.asarray(florence2.draw.annotate(image, result)))
    for result in engine.run_many(image, ["<OD>", "<CAPTION>"], max_new_tokens=SHORT):
        assert result.source is not None
        assert result.source.image is image  # a reference, no copy


def test_a_result_may_be_told_to_forget_its_image(engine: Engine, image: Image.Image) -> None:
    kept = engine.run(image, "<OD>", max_new_tokens=SHORT)
    result = engine.submit(image, "<OD>", max_new_tokens=SHORT, keep_image=False).result()
    assert result == kept
    assert result.source is None
    with pytest.raises(InvalidImage, match="pass the picture"):
        result.annotate()
    with pytest.raises(InvalidOption, match="keep_image must be True or False"):
        engine.run(image, "<OD>", keep_image="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photo_is_drawn_as_it_was_asked_about(engine: Engine, image: Image.Image, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    by_file = engine.run(tmp_path / "turned.png", "<OD>", max_new_tokens=SHORT)
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation]
    wanted = np.asarray(florence2.draw.annotate(image.transpose(turned), by_file))
    for given in (None, tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert np.array_equal(np.asarray(by_file.annotate(given)), wanted)
    as_stored = engine.run(Image.open(tmp_path / "turned.png"), "<OD>", max_new_tokens=SHORT)  # Pillow images are taken as they are
    wanted = np.asarray(florence2.draw.annotate(image, as_stored))
    for given in (None, Image.open(tmp_path / "turned.png")):
        assert np.array_equal(np.asarray(as_stored.annotate(given)), wanted)


def test_a_turned_photograph_is_answered_upright(engine: Engine, image: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    upright = engine.run(image.transpose(Image.Transpose.ROTATE_270), "<OD>", max_new_tokens=SHORT)
    assert engine.run(tmp_path / "turned.png", "<OD>", max_new_tokens=SHORT) == upright
    assert upright.image_size == (50, 70)
    stored = engine.run(tmp_path / "turned.png", "<OD>", max_new_tokens=SHORT, auto_orient=False)
    assert stored == engine.run(image, "<OD>", max_new_tokens=SHORT)


def test_text_and_region_reach_the_prompt(engine: Engine, image: Image.Image) -> None:
    inline = engine.run(image, "<REGION_TO_CATEGORY><loc_100><loc_200><loc_500><loc_600>", max_new_tokens=SHORT)
    assert engine.run(image, "<REGION_TO_CATEGORY>", region=(7, 10, 35, 30), max_new_tokens=SHORT) == inline
    grounded = engine.run(image, "<CAPTION_TO_PHRASE_GROUNDING>a red car", max_new_tokens=SHORT)
    assert engine.run(image, "<CAPTION_TO_PHRASE_GROUNDING>", text="a red car", max_new_tokens=SHORT) == grounded


def test_the_whole_path_gives_the_references_ids(engine: Engine, folder: Path) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    reference = reference_model(folder)
    prompts = ["<OD>", "<CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>a red car", "<REGION_TO_OCR><loc_1><loc_20><loc_300><loc_999>"]
    for seed, prompt in enumerate(prompts):
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90 + seed, 61, 3), dtype=np.uint8))
        inputs = processor(images=image, text=prompt, return_tensors="pt")
        expected = reference.generate(**inputs, max_new_tokens=30)[0].tolist()
        result = engine.run(image, prompt, max_new_tokens=30)
        assert [2, *result.token_ids] == expected
        assert result.raw == processor.batch_decode([expected[1:]], skip_special_tokens=False)[0]


def test_several_prompts_about_one_image(engine: Engine, image: Image.Image) -> None:
    prompts = ["<OD>", "<CAPTION>", "<OPEN_VOCABULARY_DETECTION>a cat", "what is it"]
    results = engine.run_many(image, prompts, max_new_tokens=SHORT)
    alone = [engine.run(image, prompt, max_new_tokens=SHORT) for prompt in prompts]
    assert [result.to_dict() for result in results] == [result.to_dict() for result in alone]
    assert [result.token_ids for result in results] == [result.token_ids for result in alone]
    assert [result.task for result in results] == ["<OD>", "<CAPTION>", "<OPEN_VOCABULARY_DETECTION>", "what is it>"]
    assert engine.run_many(image, []) == []
    with pytest.raises(InvalidPrompt, match="list of strings"):
        engine.run_many(image, "<OD>")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "options", "error", "field"),
    [
        ("<ODD>", {}, UnknownTask, "prompt"),
        ("<CAPTION_TO_PHRASE_GROUNDING>", {}, InvalidPrompt, "text"),
        ("<OD>", {"text": "a"}, InvalidPrompt, "text"),
        ("<REGION_TO_OCR>", {"region": (0, 0, 71, 10)}, InvalidRegion, "region"),
        ("<OD>", {"num_beams": 99}, InvalidOption, "num_beams"),
        ("<OD>", {"temperature": 1.0}, InvalidOption, "temperature"),
        ("<OD>", {"scores": 1}, InvalidOption, "scores"),
        ("word " * 400, {}, InvalidPrompt, "prompt"),
        ("<OPEN_VOCABULARY_DETECTION>" + "word " * 400, {}, InvalidPrompt, "text"),
    ],
)
def test_mistakes_are_refused_before_the_queue(
    engine: Engine, image: Image.Image, prompt: str, options: dict, error: type, field: str
) -> None:
    with pytest.raises(error) as caught:
        engine.submit(image, prompt, **options)
    assert caught.value.field == field


def test_a_prompt_that_is_too_long_is_told_the_numbers(engine: Engine, image: Image.Image) -> None:
    room = engine.max_prompt_tokens
    longest = next(text for text in ("x" * size for size in range(room + 5, 0, -1)) if len(engine.tokenizer.encode(text)) == room)
    assert engine.run(image, longest, max_new_tokens=2).token_ids
    with pytest.raises(InvalidPrompt, match=f"has {room + 1} tokens.* room for {room}"):
        engine.run(image, longest + "x")


def test_an_unreadable_image_is_refused_before_the_queue(engine: Engine) -> None:
    with pytest.raises(InvalidImage, match=r"missing\.png"):
        engine.submit("missing.png", "<OD>")


def test_many_threads_at_once(engine: Engine, image: Image.Image) -> None:
    prompts = ["<OD>", "<CAPTION>", "<OCR>", "hello"] * 4
    expected = {prompt: engine.run(image, prompt, max_new_tokens=SHORT).token_ids for prompt in set(prompts)}
    results: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        results[number] = engine.run(image, prompts[number], max_new_tokens=SHORT).token_ids

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: expected[prompt] for number, prompt in enumerate(prompts)}


def test_waiting_in_the_engines_own_thread_is_refused(engine: Engine, image: Image.Image) -> None:
    told: Future[BaseException] = Future()

    def callback(_: Future) -> None:
        try:
            engine.run(image, "<OD>")
        except EngineFailed as error:
            told.set_result(error)

    engine.submit(image, "<OD>", max_new_tokens=SHORT).add_done_callback(callback)
    assert "use submit there" in str(told.result(60))


def test_a_closed_engine_refuses(folder: Path, image: Image.Image) -> None:
    engine = florence2.load(folder, device="cpu")
    future = engine.submit(image, "<OD>", max_new_tokens=SHORT)
    engine.close()
    assert future.result(0).task == "<OD>"
    engine.close()
    with pytest.raises(EngineClosed):
        engine.run(image, "<OD>")


def test_an_exception_leaving_the_engine_cancels(folder: Path, image: Image.Image) -> None:
    futures: list[Future] = []

    def crash() -> None:
        with florence2.load(folder, device="cpu") as engine:
            futures.extend(engine.submit(image, "<OD>") for _ in range(30))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        crash()
    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()


def test_an_engine_that_nobody_holds_answers_and_ends(folder: Path, image: Image.Image) -> None:
    before = set(threading.enumerate())
    future = florence2.load(folder, device="cpu").submit(image, "<OD>", max_new_tokens=SHORT)
    (thread,) = [thread for thread in threading.enumerate() if thread not in before and thread.name == "florence2-engine"]
    gc.collect()
    assert future.result(60).task == "<OD>"
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.slow
def test_leaving_the_interpreter_does_not_hang(folder: Path) -> None:
    script = f"""
        import torch, florence2
        from PIL import Image
        torch.set_num_threads(1)
        engine = florence2.load({str(folder)!r}, device="cpu")
        futures = [engine.submit(Image.new("RGB", (9, 9)), "<OD>") for _ in range(50)]
        print("leaving")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "leaving", "")


@pytest.mark.slow
def test_the_interpreter_waits_for_a_dropped_engine_to_be_freed(folder: Path) -> None:
    """A thread that is still freeing tensors when the interpreter is gone takes the process down with it."""
    script = f"""
        import time, florence2
        from PIL import Image
        class Slow:
            def __del__(self):
                time.sleep(0.5)
                print("freed")
        new_cache = florence2.model.Florence2.new_cache
        def new_cache_and_ballast(model, max_rows):
            model.ballast = Slow()
            return new_cache(model, max_rows)
        florence2.model.Florence2.new_cache = new_cache_and_ballast
        def work():
            engine = florence2.load({str(folder)!r}, device="cpu")
            engine.run(Image.new("RGB", (9, 9)), "<OD>", max_new_tokens=3)
        work()
        time.sleep(0.2)  # until the thread has nothing to do but free
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "freed", "")


@pytest.mark.parametrize(
    ("precision", "name"), [("auto", None), ("fp32", "fp32"), ("bfloat16", "bf16"), ("float16", "fp16"), ("int8", "int8")]
)
def test_precisions(folder: Path, image: Image.Image, precision: str, name: str | None) -> None:
    before = torch.get_default_dtype()
    with florence2.load(folder, device="cpu", precision=precision) as engine:
        assert engine.precision == (name or ("bf16" if has_bf16_products() else "fp32"))
        assert engine.run(image, "<OD>", max_new_tokens=SHORT).token_ids
    assert torch.get_default_dtype() == before
    assert not torch.is_inference_mode_enabled()


def test_wrong_devices_precisions_and_models_are_named(folder: Path) -> None:
    with pytest.raises(InvalidOption, match=r"fp32.*bf16.*fp16.*got 'int4'"):
        florence2.load(folder, precision="int4")
    with pytest.raises(InvalidOption, match="cpu, cuda"):
        florence2.load(folder, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidOption, match=r"not on this machine, which has .*cpu"):
            florence2.load(folder, device="cuda")
    with pytest.raises(ModelNotFound):
        florence2.load("florence-3-huge")


def test_a_second_prompt_on_an_image_does_not_encode_it_again(folder: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = florence2.model.Florence2.encode_image
    monkeypatch.setattr(florence2.model.Florence2, "encode_image", lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels))
    with florence2.load(folder, device="cpu") as engine:
        first = engine.run(image, "<OD>", max_new_tokens=SHORT)
        engine.run(image.rotate(90), "<OD>", max_new_tokens=SHORT)
        assert engine.run(np.asarray(image), "<OD>", max_new_tokens=SHORT).token_ids == first.token_ids
        assert encoded == [1, 1]
    with florence2.load(folder, device="cpu", image_cache_bytes=0) as engine:
        assert [engine.run(image, "<OD>", max_new_tokens=SHORT).token_ids for _ in range(2)] == [first.token_ids] * 2
        assert encoded == [1, 1, 1, 1]


def test_the_length_of_a_prompt_is_told_without_an_image(engine: Engine) -> None:
    engine.check_length("<OD>")
    engine.check_length("<REGION_TO_OCR>", region=(0, 0, 50, 50))
    with pytest.raises(PromptTooLong):
        engine.check_length("<OPEN_VOCABULARY_DETECTION>", text="word " * 5000)


def test_a_prompt_is_parsed_and_tokenized_once(engine: Engine, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    region = {"region": (7, 10, 35, 30)}
    calls = [("<OD>", {}), ("<CAPTION_TO_PHRASE_GROUNDING>", {"text": "a red car"}), ("<REGION_TO_CATEGORY>", region), ("a > b", {})]
    expected = [engine.run(image, prompt, max_new_tokens=SHORT, **beside).token_ids for prompt, beside in calls]  # type: ignore[arg-type]
    prompts = [parse_prompt(prompt, **beside) for prompt, beside in calls]  # type: ignore[arg-type]
    prepared = [engine.prepare(prompt) for prompt in prompts]
    monkeypatch.setattr(prompt_module, "_check_text", lambda *_: pytest.fail("a prompt was parsed again"))
    assert [result.token_ids for result in engine.run_many(image, prompts, max_new_tokens=SHORT)] == expected
    monkeypatch.setattr(Tokenizer, "encode", lambda *_: pytest.fail("a prompt was tokenized again"))
    results = engine.run_many(image, prepared, max_new_tokens=SHORT)
    assert [result.token_ids for result in results] == expected
    assert [result.task for result in results] == ["<OD>", "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_CATEGORY>", "a >"]
    assert engine.run(image.resize((140, 100)), prepared[2], max_new_tokens=SHORT).image_size == (140, 100)


def test_a_region_is_seen_to_lie_inside_with_the_image(engine: Engine, image: Image.Image) -> None:
    for prompt in (parse_prompt("<REGION_TO_OCR>", region=(0, 0, 71, 10)), engine.prepare("<REGION_TO_OCR>", region=(0, 0, 71, 10))):
        with pytest.raises(InvalidRegion, match="inside its image of 70 x 50"):
            engine.submit(image, prompt)


def test_a_parsed_prompt_holds_its_text_and_region(engine: Engine, image: Image.Image) -> None:
    for prompt in (parse_prompt("<OPEN_VOCABULARY_DETECTION>a"), engine.prepare("<OPEN_VOCABULARY_DETECTION>a")):
        for beside in ({"text": "a"}, {"region": (0, 0, 1, 1)}):
            with pytest.raises(InvalidPrompt, match="is parsed already"):
                engine.submit(image, prompt, **beside)  # type: ignore[arg-type]


def test_another_engines_prepared_prompt_is_tokenized_again(engine: Engine, folder: Path, image: Image.Image) -> None:
    expected = engine.run(image, "<OD>", max_new_tokens=SHORT)
    with florence2.load(folder, device="cpu", precision="fp32") as other:
        foreign = replace(other.prepare("<OD>"), token_ids=(0, 2))
        assert engine.run(image, foreign, max_new_tokens=SHORT) == expected


def test_the_demo_says_what_it_is_where_no_model_was_named(caplog: pytest.LogCaptureFixture) -> None:
    engine_module._warn_of_demo.cache_clear()
    for name in (None, None, "florence-2-demo"):
        with florence2.load(*(() if name is None else (name,)), device="cpu"):
            pass
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name.split(".")[0] for record in told] == ["florence2"]
    assert 'not photographs; load("florence-2-base")' in told[0].getMessage()
