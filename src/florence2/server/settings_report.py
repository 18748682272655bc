"""What there is to say about settings: which differ from their defaults and why, what was not read, and their tables for the documentation.

In: the settings of a process, and its environment. Out: texts. Knows nothing of what the values do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from florence2.server import setting_sources as sources
from florence2.server.profiles import PROFILES
from florence2.server.settings import KEY_LISTS, Settings, closest, where


def notices(environment: Mapping[str, str], settings: Settings) -> list[str]:
    """What of the environment looks like a setting and is not read, a line each."""
    lines = [
        f"no such setting: {name}{closest(name.removeprefix(sources.PREFIX).lower())}"
        for name in sources.unknown_names(environment, Settings.model_fields)
    ]
    unread = [] if settings.roboflow_names else sources.unread_names(environment)
    if unread:
        lines.append(f"not read: {', '.join(unread)}; set {sources.PREFIX}ROBOFLOW_NAMES=true to read the names of Roboflow's server")
    lines += [
        f"not read: {name}, as the extra otel is not installed: pip install 'florence2-engine[otel]'"
        for name in sources.OTLP_NAMES
        if environment.get(name) and not sources.has_otel()
    ]
    return lines


def differing(settings: Settings, flags: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """The settings that are not as they are by default: each with its value, keys counted only, and where it was set."""
    found: dict[str, tuple[Any, str]] = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value == field.default:
            continue
        one = where(name, flags)
        shown = f"{len(value)} of them" if name in KEY_LISTS else settings.model_dump(mode="json", include={name})[name]
        found[name] = shown, one.origin if one else f"profile {settings.profile}"
    return found


def settings_table() -> str:
    """All settings, as Markdown for the documentation."""
    foreign: dict[str, list[str]] = {}
    for name, setting in sources.FOREIGN_NAMES.items():
        foreign.setdefault(setting, []).append(f"`{name}`")
    lines = ["| Setting | Default | Meaning | Roboflow's name |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = {"image_threads": "one a core, at most 4", "image_processes": "one a core, at most 2"}.get(name) or _shown(field.default)
        lines.append(f"| `{name}` | {default} | {field.description} | {', '.join(foreign.get(name, []))} |")
    return "\n".join(lines)


def profiles_table() -> str:
    """What each profile sets, as Markdown for the documentation."""
    lines = [f"| Setting | {' | '.join(PROFILES)} |", "| --- |" + " --- |" * len(PROFILES)]
    for name, field in Settings.model_fields.items():
        if any(name in values for values in PROFILES.values()):
            cells = [_shown(values.get(name, field.default)) for values in PROFILES.values()]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A value as it is written in the environment; nothing for an empty one."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
