"""YAML files of data sets, read as texts, lists and mappings alone.

In: a path. Out: what the file says, every value as the text that stands there: a class that is called ``no`` or ``1.10`` keeps its name.
Nothing is built by a file, nothing is expanded (aliases are refused), and its size is bounded. Needs PyYAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from florence2.datasets.text_files import text_of
from florence2.errors import DatasetError

_MOST_BYTES = 1 << 20


class _Texts(yaml.BaseLoader):
    """A loader that knows no types and no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the file, which is no alias of another one."""
        if self.check_event(yaml.AliasEvent):
            raise DatasetError(f"aliases (*{self.peek_event().anchor}) are not read; write out what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping in which no key stands twice."""
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            raise DatasetError(f"a key stands twice in what begins at line {node.start_mark.line + 1}")
        return mapping


def mapping_of(path: Path) -> dict[Any, Any]:
    """What a file says.

    Raises:
        DatasetError: it can't be read, is larger than 1 MiB, or is no YAML with keys and values.
    """
    text = text_of(path, _MOST_BYTES)
    try:
        content = yaml.load(text, _Texts)  # nosec B506 # a BaseLoader, which builds texts, lists and mappings only
    except DatasetError as error:
        raise DatasetError(f"{path}: {error.message}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise DatasetError(f"{path}{where} is no YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise DatasetError(f"{path} is nested too deeply to be read") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds no keys and values; expected names, and train, val and test")
    return content
