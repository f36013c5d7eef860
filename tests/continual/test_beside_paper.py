"""Criteria of pruning beside the paper's figures."""

from ewc_hf.continual import write_pruning_beside_paper
from ewc_hf.importance import PruningScope
from ewc_hf.study import Degradation

MEANS = {
    "magnitude": (0.96, 0.85),
    "signal": (0.95, 0.90),
    "fisher": (0.71, 0.5),
    "mas": (0.72, 0.32),
    "synaptic": (0.49, 0.22),
}


def test_pruning(tmp_path):
    curves = [
        Degradation(criterion, [0.8, 0.9], [[at_80 - 0.001, at_90], [at_80 + 0.001, at_90]])
        for criterion, (at_80, at_90) in MEANS.items()
    ]
    text = write_pruning_beside_paper(curves, tmp_path, PruningScope.NETWORK, "Pruned")
    assert (tmp_path / "paper.md").read_text() == text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    verdicts = {(row[0], row[1]): row[-1] for row in rows[2:]}
    assert verdicts.pop(("fisher", "90%")) == "differs"
    assert verdicts.pop(("mas", "80%")) == "differs"
    assert set(verdicts.values()) == {"agrees"} and len(verdicts) == 8
    assert ["magnitude", "80%", "0.9600 ± 0.0127", "0.9594 ± 0.0027", "agrees"] in rows
    assert "Best first at 80%: magnitude, signal, mas, fisher, synaptic (the paper: magnitude, signal, fisher" in text
    assert "Best first at 90%: signal, magnitude, fisher, mas, synaptic (the paper: signal, magnitude, mas" in text
    by_layer = write_pruning_beside_paper(curves, tmp_path, PruningScope.LAYER, "Pruned")
    assert "| 0.9213 ± 0.0086 |" in by_layer
