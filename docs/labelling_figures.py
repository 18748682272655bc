"""What labelling gains over a loop, as Markdown: the figures of ``benchmarks/label.py``."""

from __future__ import annotations

from docs import figures

_LABEL = "florence2 label"


def label() -> str:
    """Pictures a second of each side, and how many times faster labelling is."""
    found = figures._result("label")
    if found is None:
        return figures._unmeasured("label")
    loops = list(next(iter(found["figures"].values()))["times_faster"])
    header = ("Questions", f"`{_LABEL}`", *(f"a {name}".replace("engine.run", "`engine.run`") for name in loops))
    rows = [
        (
            name,
            f"{one['pictures_per_s'][_LABEL]:.1f} pictures/s",
            *(f"{one['pictures_per_s'][loop]:.1f} pictures/s: {one['times_faster'][loop]:.1f} x faster" for loop in loops),
        )
        for name, one in found["figures"].items()
    ]
    settings = found["settings"]
    same = min(one["pictures_with_the_same_answers"] for one in found["figures"].values())
    note = (
        f"{settings['model']} in {settings['precision']} on {settings['pictures']} drawn scenes, files of the data set included. "
        f"All answers about a picture are the same on both sides for {same:.1%} of the pictures; in bf16 a batch of another size may round "
        "a sum otherwise."
    )
    return f"{figures.table(header, rows)}\n\n{note} {figures._origin('label', found)}"
