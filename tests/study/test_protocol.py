"""Runs of different protocols stay out of one report."""

import dataclasses

import pytest
from datasets import Dataset
from tiny import tiny_gpt2

from ewc_hf import EWCConfig
from ewc_hf.study import Measurement, StudyData
from ewc_hf.study.protocol import require_same_protocol

MEASUREMENT = Measurement(num_examples=8)
BLOCKS = Dataset.from_dict({"input_ids": [[1, 2, 3]] * 4})
DATA = StudyData(BLOCKS, BLOCKS, retention_texts=["Once upon a time"], task_texts=["Hello"])


def training(folder, **options):
    return EWCConfig(
        str(folder), **{"max_steps": 3, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True, **options}
    )


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2()


@pytest.fixture
def folder(tmp_path, model):
    require_same_protocol(tmp_path, model, DATA, training(tmp_path), MEASUREMENT)
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 2e-2},
        {"max_steps": 4},
        {"optim": "sgd"},
        {"ewc_alpha": 0.1},
        {"ewc_stabilized": False},
        {"adam_beta2": 0.9},
        {"label_smoothing_factor": 0.1},
        {"bf16": True},
        {"max_grad_norm": 0.5},
        {"full_determinism": True},
        {"dataloader_drop_last": True},
        {"per_device_eval_batch_size": 3},
    ],
    ids=str,
)
def test_every_argument_belongs_to_the_protocol_and_is_named(model, folder, change):
    before = (folder / "protocol.json").read_bytes()
    (name,) = change
    with pytest.raises(ValueError, match=rf"another training; choose another output_dir, or set {name} as they were"):
        require_same_protocol(folder, model, DATA, training(folder, **change), MEASUREMENT)
    assert (folder / "protocol.json").read_bytes() == before


def test_what_cannot_change_a_number_is_no_other_protocol(model, folder):
    options = {"logging_steps": 1, "disable_tqdm": False, "seed": 7, "save_strategy": "no", "run_name": "again"}
    require_same_protocol(folder, model, DATA, training(folder, **options), MEASUREMENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"retention_texts": ["Once"]}, "another texts", id="held-out retention text"),
        pytest.param({"task_texts": ["Hallo"]}, "another texts", id="held-out task text"),
        pytest.param({"task_examples": Dataset.from_dict({"input_ids": [[1] * 3]})}, "another data", id="examples"),
    ],
)
def test_other_data_are_refused(model, folder, change, message):
    with pytest.raises(ValueError, match=message):
        require_same_protocol(folder, model, dataclasses.replace(DATA, **change), training(folder), MEASUREMENT)


@pytest.mark.parametrize("change", [{"num_examples": 4}, {"window": 8}, {"stride": 3}, {"max_document_tokens": 5}])
def test_another_measurement_is_refused(model, folder, change):
    other = dataclasses.replace(MEASUREMENT, **change)
    with pytest.raises(ValueError, match="another measurement"):
        require_same_protocol(folder, model, DATA, training(folder), other)


def test_another_version_is_refused(model, folder, monkeypatch):
    monkeypatch.setattr("transformers.__version__", "4.0.0")
    with pytest.raises(ValueError, match="another software; choose another output_dir"):
        require_same_protocol(folder, model, DATA, training(folder), MEASUREMENT)


def test_another_configuration_of_the_same_weights_is_refused(folder):
    model = tiny_gpt2()
    model.config.resid_pdrop = 0.5
    with pytest.raises(ValueError, match="another model"):
        require_same_protocol(folder, model, DATA, training(folder), MEASUREMENT)


@pytest.mark.parametrize("other", [{"context": 32}, {"seed": 1}], ids=["another shape", "other weights"])
def test_another_model_is_refused(folder, other):
    with pytest.raises(ValueError, match="another model"):
        require_same_protocol(folder, tiny_gpt2(**other), DATA, training(folder), MEASUREMENT)
