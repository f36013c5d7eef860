"""A study that ends early, what it leaves, and what several studies share."""

import itertools
import json
import time
from functools import partial
from types import SimpleNamespace

import pytest
from small_study import NAMES, TEXTS, small_data, small_study
from tiny import save_tiny_checkpoint, tiny_gpt2

from ewc_hf.importance import Method
from ewc_hf.study import markdown_report, read_report, run, shared, training

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def model(tmp_path):
    return save_tiny_checkpoint(tmp_path / "model")


def stop_after(monkeypatch, number):
    """Let the next study be interrupted when so many runs are finished."""
    finish, finished = training.EWCTrainer.train, []

    def train(trainer, *args, **kwargs):
        if len(finished) == number:
            raise KeyboardInterrupt
        finished.append(1)
        return finish(trainer, *args, **kwargs)

    monkeypatch.setattr(training.EWCTrainer, "train", train)


def without_times(path):
    report = json.loads(path.read_text())
    for record in report["runs"]:
        del record["seconds"], record["seconds_a_step"], record["peak_memory_bytes"]
    return report


@pytest.mark.parametrize("finished", [0, 4])
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


def test_a_study_that_is_interrupted_before_anything_is_measured_leaves_no_report(model, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.Measure, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_study(model, small_data(), tmp_path / "study")
    assert not list((tmp_path / "study").glob("report*"))


@pytest.mark.parametrize(("seconds", "written_after"), [(0, [7]), (25, [3, 6, 7])], ids=["in no time", "slowly"])
def test_the_report_is_written_once_a_minute_at_most_and_in_the_end(
    model, tmp_path, monkeypatch, seconds, written_after
):
    """By a clock that goes on by so many seconds whenever it is looked at."""
    write, written = run.write_report, []

    def counted(records, *others):
        written.append(len(records))
        return write(records, *others)

    clock = SimpleNamespace(monotonic=partial(next, itertools.count(0, seconds)), perf_counter=time.perf_counter)
    monkeypatch.setattr(run, "time", clock)
    monkeypatch.setattr(run, "write_report", counted)
    small_study(model, small_data(), tmp_path / "study")
    assert written == written_after


def test_a_runs_file_holds_only_what_the_run_itself_tells(model, tmp_path):
    small_study(model, small_data(), tmp_path / "study")
    for file in (tmp_path / "study/runs").iterdir():
        assert [key for record in json.loads(file.read_text()) for key in record if key.startswith("forgetting")] == []
    assert all(record.forgetting is not None for record in read_report(tmp_path / "study/report.json")[0])


@pytest.fixture
def estimates(monkeypatch):
    """The methods of which an importance was estimated."""
    estimate, done = shared.estimate_importance, []

    def counted(model, examples, method, **options):
        done.append(method.value)
        return estimate(model, examples, method, **options)

    monkeypatch.setattr(shared, "estimate_importance", counted)
    return done


def test_studies_of_the_same_model_and_text_share_importances(model, tmp_path, estimates):
    data, folder = small_data(), tmp_path / "shared"
    first = small_study(model, data, tmp_path / "first", folder)
    again = small_study(model, data, tmp_path / "again", folder, learning_rate=2e-2)
    assert estimates == ["fisher"]
    assert not (tmp_path / "again/shared").exists()
    assert first[2].task_nll != again[2].task_nll
    assert small_study(model, data, tmp_path / "alone")[2].task_nll == first[2].task_nll
    assert estimates == ["fisher", "fisher"]


@pytest.mark.parametrize("what", ["nothing", "weights", "configuration", "text", "number of examples", "version"])
def test_another_model_text_or_setting_gets_an_importance_of_its_own(tmp_path, estimates, monkeypatch, what):
    examples, number, other = small_data().retention_examples, 8, tiny_gpt2()
    first = shared.shared_importance(tmp_path, Method.FISHER, tiny_gpt2(), examples, number, progress=False)
    if what == "weights":
        other = tiny_gpt2(seed=1)
    elif what == "configuration":
        other.config.activation_function = "relu"
    elif what == "text":
        examples = examples.select(range(len(examples) - 1))
    elif what == "number of examples":
        number = 7
    elif what == "version":
        monkeypatch.setattr(shared, "versions", lambda: {"ewc_hf": "0.0.0"})
    second = shared.shared_importance(tmp_path, Method.FISHER, other, examples, number, progress=False)
    assert (first == second) == (what == "nothing")
    assert len(estimates) == len({first, second}) == len(list(tmp_path.glob("fisher-*")))


def test_blocks_longer_than_the_models_context_are_refused_before_any_work(model, tmp_path):
    with pytest.raises(ValueError, match="at most 16 tokens, the model's context, got 17"):
        small_study(model, small_data(17), tmp_path / "study")
    assert not (tmp_path / "study").exists()
