"""The report of a model that loses more and more weights."""

import json

import pytest

from ewc_hf.study import Degradation, write_degradation

CURVES = [
    Degradation("magnitude", [0.0, 0.5, 1.0], [[0.9, 0.8, 0.1]]),
    Degradation("fisher", [0.0, 0.5, 1.0], [[0.9, 0.7, 0.1], [0.92, 0.5, 0.1], [0.94, 0.6, 0.1]]),
]


def test_at_a_share():
    assert CURVES[0].at(0.1 + 0.4) == (0.8, None)
    mean, interval = CURVES[1].at(0.5)
    assert mean == pytest.approx(0.6)
    assert interval == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)


def test_not_measured():
    with pytest.raises(ValueError, match=r"expected one of the shares \[0.0, 0.5, 1.0\], got 0.8"):
        CURVES[0].at(0.8)


def test_report(tmp_path):
    text = write_degradation(CURVES, tmp_path / "new", "Pruned", "accuracy", [0.5, 1.0], decimals=2)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == ["criterion", "runs", "50% pruned", "100% pruned"]
    assert rows[2:] == [["magnitude", "1", "0.80", "0.10"], ["fisher", "3", "0.60 ± 0.25", "0.10 ± 0.00"]]
    folder = tmp_path / "new"
    assert (folder / "pruning.md").read_text() == text
    assert json.loads((folder / "pruning.json").read_text())["curves"][1]["scores"][2] == [0.94, 0.6, 0.1]
    assert (folder / "pruning.png").read_bytes().startswith(b"\x89PNG")
