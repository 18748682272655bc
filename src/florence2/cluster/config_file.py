"""``cluster.yaml``: its values, where each stands, and the table of its fields for the documentation.

In: a file in YAML. Out: a mapping, and lines by the path of a value. Knows nothing of what the values mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from florence2.cluster.config import ClusterConfig
from florence2.errors import InvalidOption
from florence2.extras import requires

EXAMPLE = "'engines: {max_replicas: 4}'"


@dataclass(frozen=True)
class ConfigFile:
    """A file that was read.

    Attributes:
        values: what it says; empty without a file.
        line_of: the line of each value, by its path.
        path: where it is; None: there is none.
    """

    values: dict[str, Any]
    line_of: dict[tuple[int | str, ...], int]
    path: Path | None = None

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return "the flags" if self.path is None else str(self.path)

    def place(self, path: tuple[int | str, ...]) -> str:
        """Where a value stands, behind the file's name; "" where that is not known."""
        known = next((path[:length] for length in range(len(path), 0, -1) if path[:length] in self.line_of), None)
        return "" if known is None else f", line {self.line_of[known]}"


def read_config_file(path: Path | None) -> ConfigFile:
    """What a file in YAML says.

    Raises:
        InvalidOption: it can't be read, is no mapping, or says something twice.
        MissingExtra: the extra ``cluster`` is not installed.
    """
    if path is None:
        return ConfigFile({}, {})
    with requires("cluster", "the configuration of a cluster"):
        import yaml
    try:
        text = path.read_text(encoding="utf-8")
        values, root = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise InvalidOption(f"the configuration {str(path)!r} can't be read: {error.strerror}", field="config") from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InvalidOption(f"{path}{_mark(error)} is no YAML: {getattr(error, 'problem', None) or error}", field="config") from None
    if values is None:
        return ConfigFile({}, {}, path)
    if not isinstance(values, dict):
        raise InvalidOption(f"{path} holds no mapping such as {EXAMPLE}", field="config")
    return ConfigFile(values, _lines(root, path), path)


def _mark(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _lines(root: Any, file: Path) -> dict[tuple[int | str, ...], int]:
    """The lines of all values of mappings, by their paths."""
    found: dict[tuple[int | str, ...], int] = {}
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if len(path) > 4 or not isinstance(node.value, list) or not node.tag.endswith(":map"):
            continue
        for key, value in node.value:
            below = (*path, key.value)
            if below in found:
                name = ".".join(map(str, below))
                raise InvalidOption(f"{file}, line {key.start_mark.line + 1}: {name} stands there twice", field="config")
            found[below] = key.start_mark.line + 1
            waiting.append((below, value))
    return found


def fields_table() -> str:
    """All fields of the file, as Markdown for the documentation."""
    lines = ["| Field | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in ClusterConfig.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            lines += [_row(f"{name}.{below}", one.default, one.description) for below, one in type(default).model_fields.items()]
        else:
            lines.append(_row(name, default, field.description))
    return "\n".join(lines)


def _row(name: str, default: Any, text: str | None) -> str:
    shown = "" if default == {} else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    return f"| `{name}` | {shown} | {text} |"
