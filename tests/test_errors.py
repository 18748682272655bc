"""An error says one thing wherever it is asked, and a copy that says another leaves it alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

import florence2.client.errors
import florence2.server.errors
from florence2.errors import Florence2Error, InvalidImage, MissingExtra


def kinds(kind: type[Florence2Error] = Florence2Error) -> Iterator[type[Florence2Error]]:
    """A class and all below it, those of client and server included."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__.startswith("florence2."):
            yield from kinds(below)


ALL = sorted(set(kinds()), key=lambda kind: (kind.__module__, kind.__name__))


def test_all_trees_are_looked_at() -> None:
    assert {MissingExtra, florence2.client.errors.FeatureDeprecatedError, florence2.server.errors.MethodNotAllowed} < set(ALL)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_text_message_and_arguments_are_one(kind: type[Florence2Error]) -> None:
    error = kind("said")
    error.field = "image"
    for twin in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert (str(twin), twin.args) == (twin.message, (twin.message,)) == (error.message, error.args)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_copy_with_another_message(kind: type[Florence2Error]) -> None:
    error = kind("said")
    error.field = "image"
    before = error.message
    other = error.with_message("said otherwise")
    for twin in (other, pickle.loads(pickle.dumps(other))):
        assert type(twin) is kind
        assert (str(twin), twin.message, twin.args, twin.field) == ("said otherwise", "said otherwise", ("said otherwise",), "image")
    assert error.with_message("said", field="image[1]").field == "image[1]"
    assert (str(error), error.message, error.args, error.field) == (before, before, (before,), "image")


def test_a_message_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        InvalidImage("said").message = "said otherwise"  # type: ignore[misc]


def test_the_index_of_an_image_in_its_list_stands_before_the_message() -> None:
    error = florence2.client.errors.CallError("no", status_code=503)
    error.index = 3
    assert (str(error), error.description, error.message) == ("image 3: no", "image 3: no", "no")
    assert str(pickle.loads(pickle.dumps(error))) == "image 3: no"
    assert str(error.with_message("yes")) == "image 3: yes"
