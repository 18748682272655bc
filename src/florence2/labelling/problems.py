"""The pictures of a labelling run that could not be labelled, listed for people and programs in ``DIR/problems.jsonl``.

In: a run's records. Out: a line for each such picture, with the reason; no file where there is none. Knows nothing of models.
"""

from __future__ import annotations

import json
from pathlib import Path

from florence2.labelling.records import STATE, Records

FILE = "problems.jsonl"


def write_problems(folder: Path, records: Records) -> Path | None:
    """Write the list of problems anew, whole or not at all.

    Args:
        folder: the run's.
        records: what is known of it.

    Returns:
        The file; None where there are no problems, and no file.

    Raises:
        OSError: it can't be written.
    """
    path = folder / FILE
    if not records.failed:
        path.unlink(missing_ok=True)
        return None
    new = folder / STATE / f"{FILE}.new"
    with new.open("w", encoding="ascii") as file:
        for record in records.failures():
            where = {name: record[name] for name in ("path", "url", "part") if record.get(name)}
            file.write(json.dumps({"id": record["id"], **where, **record["error"]}) + "\n")
    new.replace(path)
    return path
