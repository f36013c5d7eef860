"""A study that ends early, what it leaves, and what several studies share."""

import dataclasses
import json

import datasets
import pytest
from datasets import Dataset
from small_study import MEASUREMENT, NAMES, TEXTS, small_data, small_study, training
from tiny import save_tiny_checkpoint

from ewc_hf.study import importances, markdown_report, parse_settings, read_report, run, run_study


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def model(tmp_path):
    return save_tiny_checkpoint(tmp_path / "model")


def stop_after(monkeypatch, number):
    """Let the next study be interrupted when so many runs are finished."""
    finish, finished = run.EWCTrainer.train, []

    def train(trainer, *args, **kwargs):
        if len(finished) == number:
            raise KeyboardInterrupt
        finished.append(1)
        return finish(trainer, *args, **kwargs)

    monkeypatch.setattr(run.EWCTrainer, "train", train)


def without_times(path):
    report = json.loads(path.read_text())
    for record in report["runs"]:
        del record["seconds"], record["peak_memory_bytes"]
    return report


@pytest.mark.parametrize("finished", [0, 2, 4])
def test_an_interrupted_study_leaves_a_report_that_says_what_is_missing_and_ends_with_the_same(
    model, tmp_path, monkeypatch, finished
):
    data, folder, whole = small_data(), tmp_path / "study", tmp_path / "whole"
    small_study(model, data, whole)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_after(patched, finished)
        small_study(model, data, folder)
    all_runs = [(name, seed) for seed in (0, 1) for name in NAMES]
    records, names = read_report(folder / "report.json")
    assert names == TEXTS
    assert [(record.name, record.seed) for record in records] == [("pretrained", None), *all_runs[:finished]]
    missing = json.loads((folder / "report.json").read_text())["missing"]
    assert [(run["name"], run["seed"]) for run in missing] == all_runs[finished:]
    assert f"**Unfinished: {finished + 1} of 7 runs.** Missing: " in (folder / "report.md").read_text()
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    resumed = small_study(model, data, folder)
    assert without_times(folder / "report.json") == without_times(whole / "report.json")
    assert (folder / "report.md").read_text() == markdown_report(resumed, TEXTS)


def test_a_runs_file_holds_only_what_the_run_itself_tells(model, tmp_path):
    small_study(model, small_data(), tmp_path / "study")
    for file in (tmp_path / "study/runs").iterdir():
        assert [key for key in json.loads(file.read_text()) if key.startswith("forgetting")] == []
    assert all(record.forgetting is not None for record in read_report(tmp_path / "study/report.json")[0])


@pytest.fixture
def estimates(monkeypatch):
    """The methods of which an importance was estimated."""
    estimate, done = importances.estimate_importance, []

    def counted(model, examples, method, **options):
        done.append(method.value)
        return estimate(model, examples, method, **options)

    monkeypatch.setattr(importances, "estimate_importance", counted)
    return done


def test_studies_of_the_same_model_and_text_share_importances(model, tmp_path, estimates):
    data, shared = small_data(), tmp_path / "importances"
    first = small_study(model, data, tmp_path / "first", shared)
    again = small_study(model, data, tmp_path / "again", shared, learning_rate=2e-2)
    assert estimates == ["fisher"]
    assert not (tmp_path / "again/importance").exists()
    assert first[2].task_nll != again[2].task_nll
    assert small_study(model, data, tmp_path / "alone")[2].task_nll == first[2].task_nll
    assert estimates == ["fisher", "fisher"]


@pytest.mark.parametrize("what", ["weights", "configuration", "text", "number of examples", "version"])
def test_another_model_text_or_setting_gets_an_importance_of_its_own(model, tmp_path, estimates, monkeypatch, what):
    data, measurement, other = small_data(), MEASUREMENT, model
    settings = parse_settings(["fisher:decoupled:10"])

    def study(name):
        run_study(other, data, settings, [0], training(tmp_path / name), measurement, tmp_path / "importances")

    study("first")
    if what == "weights":
        other = save_tiny_checkpoint(tmp_path / "other", seed=1)
    elif what == "configuration":
        config = json.loads((tmp_path / "model/config.json").read_text())
        (tmp_path / "model/config.json").write_text(json.dumps({**config, "activation_function": "relu"}))
    elif what == "text":
        rows = data.retention_examples[:]
        shortened = Dataset.from_dict({key: values[:-1] for key, values in rows.items()})
        data = dataclasses.replace(data, retention_examples=shortened)
    elif what == "number of examples":
        measurement = dataclasses.replace(measurement, num_examples=7)
    else:
        monkeypatch.setattr(importances, "__version__", "0.0.0")
    study("second")
    assert estimates == ["fisher", "fisher"]
    assert len(list((tmp_path / "importances").iterdir())) == 2


def test_blocks_longer_than_the_models_context_are_refused_before_any_work(model, tmp_path):
    with pytest.raises(ValueError, match="at most 16 tokens, the model's context, got 17"):
        small_study(model, small_data(17), tmp_path / "study")
    assert not (tmp_path / "study").exists()
