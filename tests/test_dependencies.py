"""What an installation brings along: one HTTP stack, and nothing that only tests or pictures need."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def asked_for(extra: str) -> Iterator[Requirement]:
    """What one of our extras names, and the extras that it is made of."""
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == canonicalize_name(PROJECT["name"]):
            for inner in requirement.extras:
                yield from asked_for(inner)
        else:
            yield requirement


def brought_by(*extras: str) -> set[str]:
    """Names of all packages that an installation with some extras consists of, by what is installed here."""
    waiting = [Requirement(text) for text in PROJECT["dependencies"]]
    waiting += [requirement for extra in extras for requirement in asked_for(extra)]
    seen: dict[str, set[str]] = {}
    while waiting:
        requirement = waiting.pop()
        name, wanted = canonicalize_name(requirement.name), {"", *requirement.extras}
        if wanted <= seen.get(name, set()) or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen[name] = seen.get(name, set()) | wanted
        try:
            inner = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for needed in map(Requirement, inner):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in wanted):
                needed.marker = None
                waiting.append(needed)
    return set(seen)


@pytest.mark.parametrize(
    "extra", [extra for extra in PROJECT["optional-dependencies"] if extra not in ("dev", "tensorboard", "otel", "cluster")]
)
def test_one_http_stack(extra: str) -> None:
    packages = brought_by(extra)
    assert {"httpx2", "httpcore2", "socksio"} <= packages
    assert not packages & {"httpx", "httpcore", "requests", "aiohttp"}


@pytest.mark.parametrize(("extras", "absent"), [
    ((), {"torch", "huggingface-hub", "fastapi", "matplotlib", "jaxtyping"}),
    (("engine", "server"), {"jaxtyping", "beartype", "matplotlib", "pycocotools"}),
    (("train",), {"jaxtyping", "matplotlib", "pycocotools"}),
    (("evaluate",), {"jaxtyping", "matplotlib"}),
    (("all",), {"jaxtyping", "beartype", "faster-coco-eval", "transformers", "peft"}),
])  # fmt: skip
def test_what_is_not_needed_is_not_brought(extras: tuple[str, ...], absent: set[str]) -> None:
    assert not brought_by(*extras) & absent


def test_the_search_finds_what_is_needed_further_down() -> None:
    assert {"typing-inspection", "jinja2", "h11"} <= brought_by("engine", "server")
