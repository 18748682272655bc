"""The public names are there, load lazily, and say which extra they lack."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import florence2


def in_fresh_python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", florence2.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(florence2, name) is not None
    assert name in dir(florence2)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(florence2, "laod")
    with pytest.raises(AttributeError, match="laod"):
        florence2.laod  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = """
        import sys, florence2
        florence2.errors, florence2.results, florence2.tasks
        florence2.tasks.expand_prompt("<OD>"), florence2.parse("<CAPTION>", "a", (1, 1)), florence2.Result
        print([name for name in ("torch", "PIL", "tokenizers", "huggingface_hub") if name in sys.modules])
    """
    assert in_fresh_python(script) == "[]"


def test_parse_and_expand_prompt() -> None:
    parsed = florence2.parse("<OD>", "</s><s>car<loc_100><loc_200><loc_500><loc_600></s>", (1000, 500))
    assert parsed == {"<OD>": {"bboxes": [[100, 100, 500, 300]], "labels": ["car"]}}
    assert florence2.tasks.expand_prompt("<OD>") == "Locate the objects with category name in the image."


@pytest.mark.slow
@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_light_install_says_which_extra_is_missing(package: str) -> None:
    script = f"""
        import sys
        sys.modules[{package!r}] = None
        import florence2
        try:
            florence2.load
        except florence2.errors.MissingExtra as error:
            print(error)
    """
    said = in_fresh_python(script)
    assert "pip install 'florence2-engine[engine]'" in said
    assert package in said


@pytest.mark.slow
def test_a_broken_import_of_ours_is_not_taken_for_a_missing_extra() -> None:
    script = """
        import sys
        sys.modules["florence2.engine.search"] = None
        import florence2
        try:
            florence2.load
        except ModuleNotFoundError as error:
            print(type(error).__name__, error.name)
    """
    assert in_fresh_python(script) == "ModuleNotFoundError florence2.engine.search"
