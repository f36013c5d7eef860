"""The notebooks run, each in under three minutes, and are stored with their outputs."""

import time
from pathlib import Path

import nbformat
import pytest
from run_notebook import executed

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all: the first trains the small model."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.filterwarnings("ignore")  # the kernel's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, folder):
    began = time.monotonic()
    outputs = [output for cell in executed(path, folder).cells for output in cell.get("outputs", ())]
    assert time.monotonic() - began < 180
    assert any("image/png" in output.get("data", {}) for output in outputs) or "chat" in path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_with_its_outputs_and_no_path_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in code) >= 3
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = path.read_text(encoding="utf-8")
    assert "/home/" not in text and "site-packages" not in text
    assert len(text) < 400_000
