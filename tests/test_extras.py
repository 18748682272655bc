"""Missing packages: the error names the extra that brings them, and the list of what an extra brings is that of the distribution."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.utils import canonicalize_name

from florence2.errors import MissingExtra
from florence2.extras import PACKAGES, requires, requires_package
from tests.test_dependencies import PROJECT, asked_for, brought_by


def test_every_extra_has_its_list_of_packages() -> None:
    assert set(PACKAGES) == set(PROJECT["optional-dependencies"]) - {"all", "dev"}


@pytest.mark.parametrize("extra", PACKAGES)
def test_the_list_is_what_the_distribution_declares(extra: str) -> None:
    distributions_of = importlib.metadata.packages_distributions()
    owners = [set(map(canonicalize_name, distributions_of.get(package, ()))) for package in PACKAGES[extra]]
    named = set[str]().union(*owners)
    declared = {
        canonicalize_name(requirement.name)
        for requirement in asked_for(extra)
        if requirement.marker is None or requirement.marker.evaluate()
    }
    assert named >= declared
    brought = brought_by(extra)
    assert all(names & brought for names in owners if names)  # several distributions may share a name, as those of OpenTelemetry


@pytest.mark.parametrize(("missing", "extra"), [("torch", "engine"), ("pydantic_core._core", "server"), ("pycocotools.mask", "evaluate")])
def test_a_missing_package_names_its_extra_and_the_line_that_installs_it(missing: str, extra: str) -> None:
    with pytest.raises(MissingExtra) as found, requires(extra, "this test"):
        raise ModuleNotFoundError(name=missing)
    assert found.value.message == f"this test needs the extra '{extra}' ({missing} is missing): pip install 'florence2-engine[{extra}]'"
    assert isinstance(found.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("missing", ["florence2.engine.search", "pycocotools", None])
def test_another_missing_module_is_no_missing_extra(missing: str | None) -> None:
    with pytest.raises(ModuleNotFoundError) as found, requires("engine", "this test"):
        raise ModuleNotFoundError(name=missing)
    assert found.value.name == missing


def test_an_inner_extra_is_the_one_that_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"florence2-engine\[synthetic\]"), requires("evaluate", "outer"), requires("synthetic", "inner"):
        raise ModuleNotFoundError(name="matplotlib")


def test_a_package_that_no_extra_brings_is_named_itself() -> None:
    wanted = r"^this test needs the package supervision, .*: pip install supervision$"
    with pytest.raises(MissingExtra, match=wanted), requires_package("supervision", "this test"):
        raise ModuleNotFoundError(name="supervision")
    with pytest.raises(ModuleNotFoundError, match="broken") as found, requires_package("supervision", "this test"):
        raise ModuleNotFoundError("broken", name="scipy")
    assert not isinstance(found.value, MissingExtra)
