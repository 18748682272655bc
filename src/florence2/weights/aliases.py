"""The short names of published checkpoints, and where each one comes from.

Data only: a table from alias to hub repository or to the folder inside this package, and the default model. Knows nothing of
downloading.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """One short name.

    Attributes:
        name: the short name.
        repository: the hub's ``owner/name``, or None for the checkpoint inside this package.
        num_parameters: a rounded number, for lists that users read.
        description: one line for the same lists.
    """

    name: str
    repository: str | None
    num_parameters: str
    description: str

    @property
    def download_mb(self) -> int:
        """The approximate size of the download: published checkpoints have two bytes per parameter."""
        return round(float(self.num_parameters.removeprefix("under ").split()[0]) * 2)


# The native conversions are preferred: their tokenizer is complete, and they have generation and processor settings.
# The original checkpoints load as well, by their hub id (microsoft/Florence-2-base and so on).
ALIASES: dict[str, Alias] = {
    alias.name: alias
    for alias in (
        Alias("florence-2-demo", None, "under 12 M", "small, comes with the package; knows drawn shapes and words, not photographs"),
        Alias("florence-2-base", "florence-community/Florence-2-base", "231 M", "pretrained"),
        Alias("florence-2-large", "florence-community/Florence-2-large", "770 M", "pretrained"),
        Alias("florence-2-base-ft", "florence-community/Florence-2-base-ft", "231 M", "fine-tuned on downstream tasks"),
        Alias("florence-2-large-ft", "florence-community/Florence-2-large-ft", "770 M", "fine-tuned on downstream tasks"),
    )
}

DEMO = "florence-2-demo"
"""The default model: it needs no download."""

DEMO_IS = "a small model that knows drawn shapes and words, not photographs"
REAL = "florence-2-base"
"""The smallest model that was trained on photographs."""
