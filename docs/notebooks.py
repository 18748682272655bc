"""Renews the outputs of the notebooks in ``examples/``: ``python -m docs.notebooks``. A test runs them as well, and keeps nothing.

In: a notebook. Out: the same with what a real kernel answered, each picture once, and neither times nor paths of this machine.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER = Path(__file__).parent.parent / "examples"
LONGEST_CELL_S = 120


def executed(path: Path) -> Any:
    """A notebook with the outputs of a run in its own folder; the first cell that raises ends it with ``CellExecutionError``."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        ipc = Config(ConnectionFileMixin={"transport": "ipc", "connection_file": f"{folder}/kernel.json"})  # no port
        where = {"metadata": {"path": str(path.parent)}}
        # a busy machine sends what one cell prints in several pieces
        client = NotebookClient(notebook, kernel_name="python3", timeout=LONGEST_CELL_S, resources=where, config=ipc, coalesce_streams=True)
        # supervision (without OpenCV) and tqdm (without ipywidgets) warn, with paths of this machine
        client.execute(env={**os.environ, "IPYTHONDIR": folder, "PYTHONWARNINGS": "ignore"})
    return notebook


def tidied(notebook: Any) -> Any:
    """The notebook as it is committed."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/jpeg" in output.get("data", {}):  # Pillow's pictures come as both
                output["data"].pop("image/png", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    """Run every notebook, and write what came out."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(tidied(executed(path)), path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
