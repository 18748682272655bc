"""Parts that can't be read, in a run on a cluster: they are named, and their pictures are asked about again."""

from __future__ import annotations

import pickle
from pathlib import Path

from florence2.cluster.ledger import Ledger
from florence2.cluster.listing import Named
from florence2.inputs.selection import Selection
from florence2.labelling.journal import open_parts
from tests.labelling.standing_in import OD, draw_pictures
from tests.labelling.test_parts import labelled


def test_a_damaged_part_is_named_once_and_its_pictures_are_listed_again(tmp_path: Path) -> None:
    pictures, output = draw_pictures(tmp_path / "in", 4), tmp_path / "out"
    names = [str(path) for path in sorted(pictures.iterdir())]
    with open_parts(str(output), OD.asked, "model") as parts:
        for name in names[:3]:
            parts.write([{**labelled(name, Path(name).stat().st_size), "path": name}])
    cut = Path(parts.folder) / parts.names()[1]
    cut.write_bytes(cut.read_bytes()[:-9])
    ledger = Ledger(Named([str(pictures)], [], None, str(output), Selection(), None), str(output), None, 8, is_strict=False)
    chunk = ledger.chunk(0)
    assert chunk is not None
    assert [one.given.name for one in pickle.loads(chunk)] == [names[1], names[3]]
    notices = ledger.state().notices
    assert [line for line in notices if line.startswith(f"passed over {cut.name}, which is damaged: ")] == notices
    assert len(notices) == 1
    assert ledger.state().notices == []
