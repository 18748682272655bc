"""The prose of the package keeps to one dialect: docstrings in plain form, and no name that was given up for the field's term."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "florence2"
FILES = sorted(SOURCE.rglob("*.py"))

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj|ref|py:\w+):`")
SINGLE_BACKTICKS = re.compile(r"(?<!`)`(?!`)[^`\n]+`(?!`)")
DOUBLE_BACKTICKS = re.compile(r"``[^`]+``")
GIVE_BACK = re.compile(r"\bGives? back\b|\bGiven? back\b")
# Names that were given up, and the field's term.
RETIRED = {
    "Answerer": "InferenceService",
    "Places": "Locations",
    "Seen": "KeyLengths",
    "choose_numbers": "choose_precision",
    "cross_seen": "cross_key_lengths",
    "envelope": "middleware",
    "num_learning": "num_trainable",
    "place_of_row": "query_of_row",
    "recompute": "gradient_checkpointing",
    "row_of_place": "row_of_query",
    "sift": "partition",
    "supervision": "auxiliary_loss",
}


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes (a string behind an assignment) included."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            for statement in node.body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str):
                    yield statement.lineno, statement.value.value


def names(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of every identifier, but for the library that has the name of one."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and not token.line.lstrip().startswith("from supervision import "):
            yield token.start[0], token.string


def faults_of(docstring: str) -> Iterator[str]:
    """What is wrong with a docstring."""
    first = docstring.strip().splitlines()[0] if docstring.strip() else ""
    if not first.rstrip().endswith((".", "?")):
        yield f"the first line ends without a period: {first[:60]!r}"
    if ROLE.search(docstring):
        yield "a reST role: write the name in double backticks"
    if SINGLE_BACKTICKS.search(DOUBLE_BACKTICKS.sub("", docstring)):
        yield "code in single backticks: write double ones"
    if GIVE_BACK.search(docstring):
        yield '"give back": begin with what it is, or say "return"'


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(SOURCE).as_posix() for path in FILES])
def test_docstrings_and_names_keep_to_the_dialect(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [f"{path.name}:{line}: {fault}" for line, docstring in docstrings(ast.parse(text)) for fault in faults_of(docstring)]
    found += [f"{path.name}:{line}: {name} is retired: {RETIRED[name]}" for line, name in names(text) if name in RETIRED]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "docstring",
    ["No period", "Uses :class:`Engine`.", "The value of `name`.", "Give back the sum.", "The sum.\n\n    Gives back `nothing`.\n"],
)
def test_what_breaks_the_dialect_is_found(docstring: str) -> None:
    assert list(faults_of(docstring))


@pytest.mark.parametrize(
    "docstring", ['The value of ``name``, "as is".', "Write ``a`` and ``b`` to ``path``.\n\n    Raises:\n        KeyError: no ``a``.\n"]
)
def test_the_dialect_itself_passes(docstring: str) -> None:
    assert not list(faults_of(docstring))
