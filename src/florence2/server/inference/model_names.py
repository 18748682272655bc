"""The names of the models that the settings list.

In: the settings ``model`` and ``models``: aliases, hub ids, folders, ``BASE+ADAPTER``, and ``NAME=`` in front of any of them. Out: each
name with its source, no two models under one name, and the base of each model that is an adapter over one. Knows nothing of loading.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from florence2.errors import InvalidOption
from florence2.weights.aliases import ALIASES

NO_IDS: Mapping[str, str] = MappingProxyType({})
_NAME = re.compile(r"[A-Za-z0-9][\w.@-]*(/[\w.@-]+)*")


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


class Over(NamedTuple):
    """An adapter over the model ``base``, by that model's name; the adapter is a folder or hub id."""

    base: str
    adapter: str


def name_models(sources: Sequence[str], models: Mapping[str, str], api_ids: Mapping[str, str] = NO_IDS) -> dict[str, str]:
    """The names of the models that are loaded at the start, each with its source, in their order.

    A folder goes by the last part of its path, or by as many parts as tell it from all others; all else goes by itself.

    Args:
        sources: what the setting ``model`` lists.
        models: what the setting ``models`` says; its names are taken.
        api_ids: ids by which APIs know models, each with the alias that it means.

    Raises:
        InvalidOption: two models were given one name, a folder has none, or a name can't be printed.
    """
    # A name that the settings give stays; folders without one get another name if theirs is taken.
    named: dict[str, str] = {}
    for name, source in _given(sources, models, api_ids):
        if named.setdefault(name, source) != source:
            raise InvalidOption(
                f"two models are called {name!r}: {named[name]} and {source}; give each a name of its own (NAME=FOLDER)", field="model"
            )
    short = _short_names([source for source in sources if _is_unnamed_folder(source, models)], {*named, *models})
    chosen = dict.fromkeys(short[_absolute(one)] if _is_unnamed_folder(one, models) else _split(one, api_ids)[0] for one in sources)
    for name in (*models, *chosen):
        _check_name(name)
    folders = {name: folder for folder, name in short.items()}
    return {name: named[name] if name in named else folders[name] for name in chosen}


def name_adapters(adapters: Sequence[str], models: Mapping[str, str]) -> dict[str, list[str]]:
    """The adapters of each model that is loaded at the start, in their order.

    Args:
        adapters: what the setting ``adapter`` lists: folders and hub ids, each with ``NAME=`` in front where there are several models.
        models: as ``name_models`` gave them.

    Raises:
        InvalidOption: an adapter of no model, or it is not said of which.
    """
    found: dict[str, list[str]] = {}
    for one in adapters:
        name, equals, source = one.partition("=")
        if not equals or _is_folder(one):
            if len(models) != 1:
                raise InvalidOption(f"the adapter {one} could be for {_listed(models)}; say for which: NAME={one}", field="adapter")
            name, source = next(iter(models)), one
        elif name not in models:
            raise InvalidOption(f"the adapter {one} is for {name!r}, and there is {_listed(models)}", field="adapter")
        found.setdefault(name, []).append(source)
    return found


def find_bases(models: Mapping[str, str], api_ids: Mapping[str, str] = NO_IDS) -> tuple[dict[str, str], dict[str, Over]]:
    """All models with the bases that no setting names by itself, and those that are adapters over one of them.

    A base may be given by the name of another model. A folder that no model names goes by the last parts of its path.

    Args:
        models: the names of the settings, each with its source.
        api_ids: ids by which APIs know models, each with the alias that it means.

    Raises:
        InvalidOption: the base of an adapter is itself an adapter over another.
    """
    parts = {name: _base_and_adapter(source) for name, source in models.items()}
    named = dict(models)
    by_source = {_settled(source): name for name, source in models.items() if parts[name] is None}
    over: dict[str, Over] = {}
    for name, part in parts.items():
        if part is None:
            continue
        base, adapter = api_ids.get(part.base, part.base), _settled(part.adapter)
        if parts.get(base) is not None:
            raise InvalidOption(
                f"the model {name} is an adapter over {base}, which is one itself; give the model below it, or merge one of them",
                field="model",
            )
        if base not in models:
            source = _settled(base)
            if source not in by_source:
                by_source[source] = _short_names([source], set(named))[source] if _is_folder(base) else base
                named[by_source[source]] = source
            base = by_source[source]
        over[name] = Over(base, adapter)
    return named, over


def _check_name(name: str) -> None:
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise InvalidOption(f"the name of a model has to be printable and not to begin or end with spaces, got {name!r}", field="model")


def _base_and_adapter(source: str) -> Over | None:
    """The two parts of BASE+ADAPTER; None for anything else, such as a folder with a plus in its name."""
    if "+" not in source or _is_folder(source):
        return None
    pieces = source.split("+")
    splits = [Over("+".join(pieces[:index]).strip(), "+".join(pieces[index:]).strip()) for index in range(1, len(pieces))]
    fitting = [split for split in splits if _is_folder(split.adapter) or _HUB_ID.fullmatch(split.adapter)]
    chosen = (fitting or splits)[0]
    if not (chosen.base and chosen.adapter):
        raise InvalidOption(f"the model {source!r} is no BASE+ADAPTER: one of the two is missing", field="model")
    return chosen


def _listed(names: Iterable[str]) -> str:
    return " or ".join(names) or "no model at the start"


def _given(sources: Sequence[str], models: Mapping[str, str], api_ids: Mapping[str, str]) -> list[tuple[str, str]]:
    """Name and source of each model that has a name of its own; a name of ``models`` has the source given there."""
    found: list[tuple[str, str]] = []
    for one in sources:
        if _is_unnamed_folder(one, models):
            continue
        name, source = _split(one, api_ids)
        if name in models:
            found.append((name, _settled(models[name])))
            if "=" not in one:
                continue
        found.append((name, _settled(source)))
    return found


def _settled(source: str) -> str:
    """One text for all ways to write the same source."""
    return _absolute(source) if _is_folder(source) else source


def _split(source: str, api_ids: Mapping[str, str]) -> tuple[str, str]:
    """Name and source of a model, unless it is a folder without a name."""
    name, equals, rest = source.partition("=")
    if equals and not _is_folder(source) and _NAME.fullmatch(name.strip()):
        if not rest.strip():
            raise InvalidOption(f"the model {source!r} has no source: expected NAME=FOLDER, NAME=ALIAS or NAME=HUB-ID", field="model")
        return name.strip(), api_ids.get(rest.strip(), rest.strip())
    if _base_and_adapter(source) is not None:
        raise InvalidOption(f"an adapter over a base needs a name: NAME={source}", field="model")
    known = api_ids.get(source, source)
    return known, known


def _is_unnamed_folder(source: str, models: Mapping[str, str]) -> bool:
    return source not in ALIASES and source not in models and _is_folder(source)


def _is_folder(source: str) -> bool:
    return source not in ALIASES and Path(source).expanduser().is_dir()


def _absolute(folder: str) -> str:
    """One text for all ways to write a folder's path. Links stay: who links ``best`` to a run calls it ``best``."""
    return os.path.abspath(Path(folder).expanduser())


def _short_names(folders: Sequence[str], taken: set[str]) -> dict[str, str]:
    """The name of each folder by its whole path: its last parts, as few as tell it from the others and from what is taken."""
    lengths = dict.fromkeys(map(_absolute, folders), 1)
    while True:
        names = {folder: "/".join(Path(folder).parts[1:][-length:]) for folder, length in lengths.items()}
        counts = Counter(names.values())
        unclear = [folder for folder, name in names.items() if not name or counts[name] > 1 or name in taken]
        if not unclear:
            return names
        for folder in unclear:
            if lengths[folder] >= len(Path(folder).parts) - 1:
                raise InvalidOption(f"the folder {folder} has no name of its own; give it one: NAME={folder}", field="model")
            lengths[folder] += 1
