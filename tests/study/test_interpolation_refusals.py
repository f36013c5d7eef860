"""What `interpolate` refuses: before any work, with a message that says why, and without a trace on the disk."""

import shutil
import types

import pytest
import torch
from old_and_tuned import BOOK_TEXTS, DIALOG_TEXTS, save, save_models, slide

from ewc_hf.engines import processes
from ewc_hf.study import interpolate
from ewc_hf.study.checkpoints import load_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def holds(name):
    def prepare(folder):
        (folder / "out").mkdir()
        (folder / "out" / name).write_text("mine")

    return prepare


def diverged(folder):
    model = load_model(folder / "tuned", torch.float32)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(3e38)
    save(model, folder / "tuned")


NOTHING = None
BAD = {
    "one point": (NOTHING, {"points": 1}, "expected points >= 2, the two ends among them, got 1"),
    "no point with a budget": (NOTHING, {"points": 0, "max_forgetting": 0.1}, "expected points >= 2, .* got 0"),
    "both budgets": (
        NOTHING,
        {"max_forgetting": 0.1, "max_task_loss": "2%"},
        "max_forgetting or max_task_loss, got bo",
    ),
    "no percentage": (
        NOTHING,
        {"max_task_loss": "2 in 3"},
        r"expected max_task_loss as '\+2%', '2%' or 0.02, got '2 in",
    ),
    "a budget of nothing": (NOTHING, {"max_forgetting": 0.0}, "expected a positive, finite max_forgetting, got 0.0"),
    "an infinite budget": (NOTHING, {"max_forgetting": float("inf")}, "positive, finite max_forgetting, got inf"),
    "a model is there": (
        holds("model.safetensors"),
        {},
        "holds no model, got '.*out' with 'model.safetensors'; nothing",
    ),
    "a shard is there": (holds("model-00001-of-00002.safetensors"), {}, "got '.*out' with 'model-00001-of-00002.saf"),
    "an adapter is there": (holds("adapter_model.safetensors"), {}, "got '.*out' with 'adapter_model.safetensors'"),
    "a text is there": (holds("README.md"), {}, "got '.*out' with 'README.md'; nothing is written over"),
    "a file is there": (
        lambda folder: (folder / "out").write_text(""),
        {},
        "a folder as output_dir, got the file '.*out",
    ),
    "one string": (NOTHING, {"texts": BOOK_TEXTS[0]}, "expected a list of documents, got one string"),
    "no document": (NOTHING, {"texts": []}, "expected a document with a token to predict, got none in 0 documents"),
    "window": (NOTHING, {"window": 99}, "expected 2 <= window <= 16, the model's context, got 99"),
    "diverged": (
        diverged,
        {},
        "expected a finite NLL of the tuned model, got nan on the task and nan on the retention",
    ),
}


@pytest.mark.filterwarnings("ignore:The BCa confidence interval")  # scipy's, of NaN
@pytest.mark.parametrize(("prepare", "options", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(models, tmp_path, prepare, options, message):
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    if prepare is not NOTHING:
        prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    options = {"max_forgetting": 0.05} | options if "max_task_loss" not in options else options
    texts = options.pop("texts", BOOK_TEXTS)
    with pytest.raises(ValueError, match=message):
        interpolate(
            tmp_path / "old", tmp_path / "tuned", texts, DIALOG_TEXTS, tmp_path / "out", progress=False, **options
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("end", ["old", "tuned"])
def test_the_ends_are_not_written_over(models, end):
    before = (models / end / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=f"an output_dir that holds no model, got '.*{end}' with 'config.json'"):
        slide(models, models / end, max_forgetting=0.05)
    assert (models / end / "model.safetensors").read_bytes() == before


def test_several_processes_are_refused(models, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "launched", lambda: types.SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="expected one process, got 2; launch with --num_processes 1"):
        slide(models, tmp_path / "out")
