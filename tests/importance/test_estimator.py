"""What every estimator does."""

import pytest

from ewc_hf import estimate_importance
from ewc_hf.data import batches
from ewc_hf.engines import trainable_parameters
from ewc_hf.importance import LabelSource, MASOutput, log_likelihood
from ewc_hf.importance.mas import squared_output_norm
from ewc_hf.importance.signal import AbsoluteSignals
from ewc_hf.per_example import GradientStatistics, Statistic


def fisher(model, parameters):
    return GradientStatistics(model, parameters, log_likelihood(LabelSource.GROUND_TRUTH, seed=0), Statistic.SQUARE)


def mas(model, parameters):
    return GradientStatistics(model, parameters, squared_output_norm(MASOutput.LOGITS), Statistic.ABSOLUTE)


@pytest.mark.parametrize("build", [fisher, mas, AbsoluteSignals])
def test_adding_a_batch_returns_how_many_of_its_label_tokens_count(model, padded, prompted, build):
    estimator = build(model.eval(), trainable_parameters(model))
    for examples, expected in ((prompted[-1:], 0), (padded, 8 + 4 + 6 + 1), (prompted, 6 + 4 + 8 + 0)):
        (batch,) = batches(examples, len(examples), None, model)
        assert estimator.add(batch) == expected


QUANTITIES = {
    "true labels": {"labels": "ground_truth"},
    "sampled labels": {"labels": "sampled"},
    "predicted labels": {"labels": "predicted"},
    "probabilities": {"method": "mas"},
    "logits": {"method": "mas", "mas_output": "logits"},
}


def test_one_unit_is_one_quantity(model, packed):
    """Those of two different quantities are neither merged nor given each other's default of lambda."""
    found = {
        name: estimate_importance(model, packed, progress=False, **options) for name, options in QUANTITIES.items()
    }
    units = {name: consolidation.metadata["unit"] for name, consolidation in found.items()}
    assert units["true labels"] == units["sampled labels"] == "nats per token"
    assert len(set(units.values())) == len(units) - 1
    found["true labels"].merge(found["sampled labels"])
    for one, other in (("true labels", "predicted labels"), ("probabilities", "logits")):
        with pytest.raises(ValueError, match="expected importances of the same unit"):
            found[one].merge(found[other])
