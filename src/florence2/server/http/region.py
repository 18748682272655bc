"""A region as JSON has it: four numbers, or text, bounded before anything of it is read. ``tasks.prompt`` says whether it is one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

MAX_REGION_CHARS = 128
MAX_REGION_NUMBERS = 16  # more than four, so that the error for five says what a region is


def _form(value: object) -> str:
    return "as text" if isinstance(value, str) else "as list"


_Numbers = Annotated[list[float], Field(max_length=MAX_REGION_NUMBERS, fail_fast=True), Tag("as list")]
_Text = Annotated[str, Field(max_length=MAX_REGION_CHARS), Tag("as text")]
RegionValue = Annotated[_Numbers | _Text, Discriminator(_form)]
"""The type of a field that holds a region."""
