"""What tiles find and cost, as Markdown: the figures of ``benchmarks/tiles.py``."""

from __future__ import annotations

from docs import figures


def tiles() -> str:
    """Recall, precision and cost of each way of asking."""
    found = figures._result("tiles")
    if found is None:
        return figures._unmeasured("tiles")
    alone = found["figures"]["whole picture"]["ms"]["median"]
    header = ("", "Pictures encoded", "Time", "Objects: recall", "precision", "Words: places found", "read right", "precision")
    rows = [
        (
            name,
            one["encodings"],
            f"{one['ms']['median'] / 1000:.2f} s ({one['ms']['median'] / alone:.1f} x)",
            *(f"{one[metric]:.2f}" for metric in ("objects_recall", "objects_precision")),
            *(f"{one[metric]:.2f}" for metric in ("word_places_recall", "words_recall", "words_precision")),
        )
        for name, one in found["figures"].items()
    ]
    settings = found["settings"]
    width, height = settings["size"]
    note = (
        f"{settings['model']} in {settings['precision']}, greedy, on {settings['mosaics']} mosaics of {settings['scenes']} scenes each "
        f"({width} x {height} pixels), `<OD>` and `<OCR_WITH_REGION>` together; medians of the time. Overlap 0.2 unless it says otherwise."
    )
    return f"{figures.table(header, rows)}\n\n{note} {figures._origin('tiles', found)}"
