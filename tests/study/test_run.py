import dataclasses
import shutil
from types import SimpleNamespace

import pytest
from small_study import MEASUREMENT, NAMES, SEEDS, TEXTS, small_data, training
from small_study import small_study as study
from tiny import save_tiny_checkpoint
from transformers import AutoModelForCausalLM

from ewc_hf import Consolidation, estimate_importance
from ewc_hf.engines import processes
from ewc_hf.study import Setting, markdown_report, parse_settings, read_report, run_study
from ewc_hf.study.finished import FRACTIONS

pytestmark = pytest.mark.usefixtures("datasets_cache")
TIMES = ("seconds", "seconds_a_step", "peak_memory_bytes")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def first(model, data, tmp_path_factory):
    """The folder and the records of one study; tests work on copies of the folder."""
    folder = tmp_path_factory.mktemp("study")
    return folder, study(model, data, folder)


@pytest.fixture
def folder(first, tmp_path):
    return shutil.copytree(first[0], tmp_path / "study")


def numbers(records):
    """What does not depend on the machine's mood."""
    return [{k: v for k, v in dataclasses.asdict(record).items() if k not in TIMES} for record in records]


def stamps(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def finished_work(folder):
    return {path: stamp for path, stamp in stamps(folder).items() if path.parts[0] in ("runs", "shared")}


def test_the_pretrained_model_comes_first_then_every_setting_with_every_seed(first):
    _, records = first
    expected = [("pretrained", None), *[(name, seed) for seed in SEEDS for name in NAMES]]
    assert [(record.name, record.seed) for record in records] == expected
    assert [(r.method, r.overrides, r.curves, r.label) for r in records[:4]] == [
        ("pretrained", {}, {}, ""),
        ("plain", {}, {}, ""),
        ("fisher", {"ewc_coupling": "decoupled", "ewc_lambda": 10.0}, {"EWC (Fisher), decoupled": 10.0}, "10"),
        ("l2", {"ewc_coupling": "loss", "ewc_lambda": 1.0}, {"L2 to start, loss": 1.0}, "1"),
    ]


def test_the_report_is_written(first):
    folder, records = first
    assert read_report(folder / "report.json") == (records, TEXTS)
    assert (folder / "report.md").read_text(encoding="utf-8") == markdown_report(records, TEXTS)
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    runs = {"pretrained.json", *[f"{name}-seed{seed}.json" for name in NAMES for seed in SEEDS]}
    assert {path.name for path in (folder / "runs").iterdir()} == runs
    assert sorted(path.name.split("-")[0] for path in (folder / "shared").iterdir()) == ["fisher", "l2"]
    top = {"protocol.json", *(f"report.{kind}" for kind in ("json", "md", "png", "html")), "runs", "shared"}
    assert {path.name for path in folder.iterdir()} == top


def test_fine_tuning_learns_and_the_penalty_holds_weights_back(first):
    _, (pretrained, *tuned) = first
    assert pretrained.forgetting == 0 and pretrained.forgetting_removed is None
    for plain, fisher, l2 in (tuned[:3], tuned[3:]):
        learned, by_the_way = pretrained.task_nll - plain.task_nll, pretrained.retention_nll - plain.retention_nll
        assert learned > max(0, by_the_way), "the task is what is trained on"
        assert plain.forgetting_removed == 0
        assert len({plain.retention_nll, fisher.retention_nll, l2.retention_nll}) == 3
        assert plain.task_nll < fisher.task_nll < pretrained.task_nll
    assert all(record.seconds > 0 and record.peak_memory_bytes > 0 for record in tuned)
    assert tuned[0].task_nll != tuned[3].task_nll, "seeds differ"


def test_a_run_keeps_its_documents_scores_and_forgetting_gets_an_interval_over_them(data, first):
    _, (pretrained, plain, *_) = first
    for record in (pretrained, plain):
        for texts, documents, nll in (
            (data.task_texts, record.task_documents, record.task_nll),
            (data.retention_texts, record.retention_documents, record.retention_nll),
        ):
            nats, num_tokens = zip(*documents, strict=True)
            assert len(documents) == len(texts)
            assert sum(nats) / sum(num_tokens) == pytest.approx(nll)
    assert pretrained.forgetting_interval is None
    low, high = plain.forgetting_interval
    assert low <= plain.forgetting <= high and low < high


def test_a_setting_may_change_any_option(model, data, tmp_path):
    settings = parse_settings(["plain:learning_rate=1e-30", "fisher:loss:10:ewc_stabilized=false", "fisher:loss:10"])
    pretrained, plain, still, unstabilized, stabilized = run_study(
        model, data, settings, [0], training(tmp_path), MEASUREMENT
    )
    assert (still.name, still.method, still.overrides) == (
        "plain-learning_rate=1e-30",
        "plain",
        {"learning_rate": 1e-30},
    )
    assert still.task_nll == pytest.approx(pretrained.task_nll, rel=1e-6) != pytest.approx(plain.task_nll, rel=1e-3)
    assert unstabilized.overrides == {**stabilized.overrides, "ewc_stabilized": False}
    assert unstabilized.curves == {"EWC (Fisher), loss, ewc_stabilized=False": 10.0}
    assert still.curves == {"lower learning rate": 1 / 1e-30} and plain.curves == {"lower learning rate": 100.0}
    assert unstabilized.task_nll != stabilized.task_nll
    assert still.forgetting == pytest.approx(0, abs=1e-4)


def test_another_protocol_in_the_same_folder_is_refused(model, data, folder):
    before = stamps(folder)
    with pytest.raises(ValueError, match="another training; choose another output_dir"):
        study(model, data, folder, learning_rate=2e-2)
    assert stamps(folder) == before


def test_the_importance_is_that_of_the_pretraining_text(model, data, first):
    (folder,) = (first[0] / "shared").glob("fisher-*")
    stored = Consolidation.from_pretrained(folder)
    pretrained = AutoModelForCausalLM.from_pretrained(model)
    expected = estimate_importance(pretrained, data.retention_examples, num_examples=8, progress=False)
    assert stored.metadata["importance_fingerprint"] == expected.metadata["importance_fingerprint"]


def test_a_strength_holds_everything_at_its_anchor(model, data, tmp_path):
    settings = parse_settings(["l2:decoupled:1e12"])
    pretrained, plain, held = run_study(model, data, settings, [0], training(tmp_path), MEASUREMENT)
    assert held.task_nll == pytest.approx(pretrained.task_nll, rel=1e-6)
    assert held.task_nll != pytest.approx(plain.task_nll, rel=1e-3)


def test_the_coupling_is_the_settings_own(model, data, tmp_path):
    settings = parse_settings(["l2:loss:1", "l2:decoupled:1"])
    losses = {
        default: [r.task_nll for r in run_study(model, data, settings, [0], args, MEASUREMENT)[2:]]
        for default in ("loss", "decoupled")
        for args in [training(tmp_path / default, ewc_coupling=default)]
    }
    assert losses["loss"] == losses["decoupled"]
    assert len(set(losses["loss"])) == 2


def test_a_second_call_runs_nothing_again(model, data, first, folder):
    before = finished_work(folder)
    assert study(model, data, folder) == first[1]
    assert finished_work(folder) == before
    assert len(before) > 7


def test_more_seeds_run_only_what_is_missing(model, data, first, folder):
    before = finished_work(folder)
    records = run_study(model, data, parse_settings(["l2:loss:1"]), [0, 2], training(folder), MEASUREMENT)
    assert [(r.name, r.seed) for r in records[1:]] == [("plain", 0), ("l2-loss-1", 0), ("plain", 2), ("l2-loss-1", 2)]
    assert records[1] == first[1][1]
    added = finished_work(folder).keys() - before.keys()
    assert {path.name for path in added} == {"plain-seed2.json", "l2-loss-1-seed2.json"}


def test_more_settings_put_what_is_finished_on_their_curves(model, data, first, folder):
    """Also what earlier calls measured, which did not know these settings; the models between are measured then."""
    settings = parse_settings(["plain:interpolated", "plain:max_steps=1", "l2:loss:1"])
    _, plain, *between, fewer, l2 = run_study(model, data, settings, [0], training(folder), MEASUREMENT)
    assert plain.curves == {"plain, interpolated": 0.0, "fewer steps": 1 / 3}
    assert [(run.fraction, run.curves) for run in between] == [
        (fraction, {"plain, interpolated": 1 - fraction}) for fraction in FRACTIONS
    ]
    assert fewer.curves == {"fewer steps": 1.0}
    assert l2.curves == {"L2 to start, loss": 1.0} and l2.seconds == first[1][3].seconds
    before = finished_work(folder)
    again = study(model, data, folder)
    assert finished_work(folder) == before
    assert [run.curves for run in again[1:4]] == [run.curves for run in first[1][1:4]]


@pytest.mark.parametrize("setting", ["replay:0.5", "self_replay:0.5", "plain:max_steps=5"])
def test_what_counts_steps_is_refused_in_a_study_by_epochs(model, data, tmp_path, setting):
    with pytest.raises(ValueError, match=r"expected max_steps > 0 for .*(replay|plain-max_steps).*, got -1; the runs"):
        run_study(model, data, parse_settings([setting]), [0], training(tmp_path, max_steps=-1), MEASUREMENT)
    assert not list(tmp_path.iterdir())


def test_a_process_with_several_gpus_is_refused(model, data, tmp_path):
    args = training(tmp_path)
    args._n_gpu = 2  # as `Trainer` would spread a batch over them
    with pytest.raises(ValueError, match=r"expected one GPU, got 2; set CUDA_VISIBLE_DEVICES=0"):
        run_study(model, data, parse_settings([]), [0], args, MEASUREMENT)


def test_several_processes_are_refused(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "launched", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="expected one process, got 2; launch with --num_processes 1"):
        run_study(model, data, parse_settings([]), [0], training(tmp_path / "out"), MEASUREMENT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(["runs/plain-seed1.json"], id="a plain run"),
        pytest.param(["runs/fisher-decoupled-10-seed1.json", "report.json"], id="a run and the report"),
        pytest.param(["runs/fisher-decoupled-10-seed0.json", "shared"], id="a run and the importance"),
        pytest.param(["runs/pretrained.json"], id="the pretrained model"),
    ],
)
def test_an_interrupted_study_ends_with_the_same_numbers(model, data, first, folder, lost):
    for name in lost:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    records = study(model, data, folder)
    assert numbers(records) == numbers(first[1])
    assert all((folder / name).exists() for name in lost)
    kept = [record.name for record, old in zip(records, first[1], strict=True) if record == old]
    assert len(kept) == len(records) - 1, "only what was lost is run again"


def test_an_unknown_method_is_named(model, data, tmp_path):
    with pytest.raises(ValueError, match=r"magic is not a valid .*'fisher', 'mas'"):
        run_study(model, data, parse_settings(["magic:loss:1"]), [0], training(tmp_path), MEASUREMENT)
    assert not (tmp_path / "runs").exists()


def test_runs_leave_no_checkpoints_in_the_studys_folder(model, data, tmp_path):
    run_study(model, data, [Setting("plain")], [0], training(tmp_path, save_strategy="steps"), MEASUREMENT)
    assert list(tmp_path.glob("checkpoint-*")) == []
