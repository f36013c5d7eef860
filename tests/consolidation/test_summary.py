"""An importance at a glance: mean and maximum of each kind of layer, in memory and on disk."""

import pytest
import torch
from tiny import tiny_gpt2

from ewc_hf import Consolidation, estimate_importance, l2_to_start
from ewc_hf.consolidation import StoredConsolidation


@pytest.fixture(scope="module")
def consolidation():
    examples = [{"input_ids": list(range(first, first + 10))} for first in range(4)]
    return estimate_importance(tiny_gpt2(), examples, num_examples=4, progress=False)


def cells(table):
    head, _, *rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines())
    return head, rows


def test_mean_and_maximum_of_each_kind(consolidation):
    head, rows = cells(consolidation.summary())
    assert head == ["kind of layer", "weights", "mean importance", "maximum"]
    found = {row[0]: row[1:] for row in rows}
    both = [
        consolidation.importance[f"transformer.h.{layer}.mlp.c_fc.{kind}"]
        for layer in (0, 1)
        for kind in ("weight", "bias")
    ]
    omega = torch.cat([each.flatten() for each in both])
    assert found["transformer.h.*.mlp.c_fc"] == [f"{len(omega):,}", f"{omega.mean():.3g}", f"{omega.max():.3g}"]
    assert sum(int(row[1].replace(",", "")) for row in rows) == sum(
        map(torch.numel, consolidation.importance.values())
    )


def test_it_is_the_same_on_disk(tmp_path, consolidation):
    consolidation.save_pretrained(tmp_path)
    stored = StoredConsolidation.open(tmp_path)
    assert (stored.summary(), repr(stored)) == (consolidation.summary(), repr(consolidation))


def test_it_tells_what_it_is_in_a_line(consolidation):
    num_weights = sum(map(torch.numel, consolidation.importance.values()))
    assert repr(consolidation) == (
        "Consolidation(fisher with ground_truth labels, nats per token, 4 examples, 36 tokens, "
        f"{num_weights:,} weights)"
    )
    assert "72 tokens, 2 tasks" in repr(consolidation.merge(consolidation))
    assert "examples" not in repr(l2_to_start(tiny_gpt2()))


def test_a_notebook_shows_the_table(consolidation):
    shown = consolidation._repr_html_()
    assert shown.startswith("<p>Consolidation(fisher") and "<td>transformer.h.*.mlp.c_fc</td>" in shown
    odd = Consolidation.create(
        {"a<b": torch.ones(1)}, {"a<b": torch.ones(1)}, method="l2", unit="x", num_examples=0, num_tokens=0
    )
    assert "<td>a&lt;b</td>" in odd._repr_html_()
