"""Runs a notebook in a kernel of this Python."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"


def run(name):
    """Runs all cells, and returns their output as text. A cell that raises fails the caller."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.get("text") or "".join(output.get("data", {}).values()) for output in outputs]
    return "\n".join(texts)
