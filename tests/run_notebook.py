"""Executes notebooks and keeps their outputs, but for progress and what is written to stderr: warnings with paths.

python tests/run_notebook.py notebooks/*.ipynb
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def executed(path, folder):
    """The notebook with the outputs of its cells, run in a folder; an error in a cell is raised."""
    os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed tells, where it is installed, that it looked for others
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kept = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in kept if output.get("text", "kept").strip() and not is_bar(output)]
            cell.metadata.clear()  # times
    return notebook


def is_bar(output):
    """Whether it is a progress bar, which stays where it ended."""
    return "<progress" in output.get("data", {}).get("text/html", "")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for path in map(Path, sys.argv[1:]):
            nbformat.write(executed(path, folder), path)
