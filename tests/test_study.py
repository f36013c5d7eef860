import dataclasses
import json
import runpy
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from ewc_hf.protocol import Measurement, StudyData
from ewc_hf.report import markdown_report, read_records
from ewc_hf.settings import Setting, parse_settings
from ewc_hf.text import document_texts, pack
from tiny import SENTENCES, save_tiny_checkpoint, tiny_tokenizer
from transformers import AutoModelForCausalLM

from ewc_hf import Consolidation, EWCConfig, estimate_importance
from ewc_hf.study import run_study

RECIPE = Path(__file__).parents[1] / "recipes/forgetting_study.py"
SETTINGS = ["plain", "fisher:decoupled:10", "l2:loss:1"]
NAMES = ["plain", "fisher-decoupled-10", "l2-loss-1"]
SEEDS = [0, 1]
BOOKS = [" ".join(SENTENCES[number:] + SENTENCES[:number]) for number in (0, 1, 2)] * 4
DIALOGS = [[{"speaker": name, "text": f"Hello {name}, how are you?"} for name in pair] for pair in ("ab", "xy")] * 6
MEASUREMENT = Measurement(num_examples=8)
TIMES = ("seconds", "peak_memory_bytes")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data():
    books, dialogs = Dataset.from_dict({"text": BOOKS}), Dataset.from_dict({"turns": DIALOGS})
    return StudyData(
        retention_examples=pack(books, tiny_tokenizer(), 16),
        task_examples=pack(dialogs, tiny_tokenizer(), 16),
        retention_texts=BOOKS[:3],
        task_texts=document_texts(dialogs)[:2],
    )


def training(folder, **options):
    return EWCConfig(
        str(folder),
        **{
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "report_to": "none",
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            **options,
        },
    )


def study(model, data, folder, **options):
    return run_study(model, data, parse_settings(SETTINGS), SEEDS, training(folder, **options), MEASUREMENT)


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
    return {path: stamp for path, stamp in stamps(folder).items() if path.parts[0] in ("runs", "importance")}


def test_the_pretrained_model_comes_first_then_every_setting_with_every_seed(first):
    _, records = first
    expected = [("pretrained", None), *[(name, seed) for seed in SEEDS for name in NAMES]]
    assert [(record.name, record.seed) for record in records] == expected
    assert [(r.method, r.coupling, r.ewc_lambda) for r in records[:4]] == [
        ("pretrained", None, 0.0),
        ("plain", None, 0.0),
        ("fisher", "decoupled", 10.0),
        ("l2", "loss", 1.0),
    ]


def test_the_report_is_written(first):
    folder, records = first
    assert read_records(folder / "report.json") == records
    assert (folder / "report.md").read_text(encoding="utf-8") == markdown_report(records)
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    runs = {"pretrained.json", *[f"{name}-seed{seed}.json" for name in NAMES for seed in SEEDS]}
    assert {path.name for path in (folder / "runs").iterdir()} == runs
    assert {path.name for path in (folder / "importance").iterdir()} == {"fisher", "l2"}
    top = {"protocol.json", "report.json", "report.md", "report.png", "runs", "importance"}
    assert {path.name for path in folder.iterdir()} == top


def test_fine_tuning_learns_and_the_penalty_holds_weights_back(first):
    _, (pretrained, *tuned) = first
    assert pretrained.forgetting == 0 and pretrained.forgetting_removed is None
    for plain, fisher, l2 in (tuned[:3], tuned[3:]):
        learned, by_the_way = pretrained.dialog_nll - plain.dialog_nll, pretrained.book_nll - plain.book_nll
        assert learned > max(0, by_the_way), "dialogs are what is trained on"
        assert plain.forgetting_removed == 0
        assert len({plain.book_nll, fisher.book_nll, l2.book_nll}) == 3
        assert plain.dialog_nll < fisher.dialog_nll < pretrained.dialog_nll
    assert all(record.seconds > 0 and record.peak_memory_bytes > 0 for record in tuned)
    assert tuned[0].dialog_nll != tuned[3].dialog_nll, "seeds differ"


def test_the_importance_is_that_of_the_pretraining_text(model, data, first):
    stored = Consolidation.from_pretrained(first[0] / "importance/fisher")
    pretrained = AutoModelForCausalLM.from_pretrained(model)
    expected = estimate_importance(pretrained, data.retention_examples, num_examples=8, progress=False)
    assert stored.metadata["importance_fingerprint"] == expected.metadata["importance_fingerprint"]


def test_a_strength_holds_everything_at_its_anchor(model, data, tmp_path):
    settings = parse_settings(["l2:decoupled:1e12"])
    pretrained, plain, held = run_study(model, data, settings, [0], training(tmp_path), MEASUREMENT)
    assert held.dialog_nll == pytest.approx(pretrained.dialog_nll, rel=1e-6)
    assert held.dialog_nll != pytest.approx(plain.dialog_nll, rel=1e-3)


def test_the_coupling_is_the_settings_own(model, data, tmp_path):
    settings = parse_settings(["l2:loss:1", "l2:decoupled:1"])
    losses = {
        default: [r.dialog_nll for r in run_study(model, data, settings, [0], args, MEASUREMENT)[2:]]
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


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(["runs/plain-seed1.json"], id="a plain run"),
        pytest.param(["runs/fisher-decoupled-10-seed1.json", "report.json"], id="a run and the report"),
        pytest.param(["runs/fisher-decoupled-10-seed0.json", "importance"], id="a run and the importance"),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"learning_rate": 2e-2}, "another training; choose another output_dir", id="learning rate"),
        pytest.param({"max_steps": 4}, "another training", id="steps"),
        pytest.param({"optim": "sgd"}, "another training", id="optimizer"),
        pytest.param({"ewc_alpha": 0.1}, "another training", id="alpha"),
        pytest.param({"ewc_stabilized": False}, "another training", id="plain EWC"),
    ],
)
def test_another_training_in_the_same_folder_is_refused(model, data, folder, change, message):
    before = stamps(folder)
    with pytest.raises(ValueError, match=message):
        study(model, data, folder, **change)
    assert stamps(folder) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"retention_texts": BOOKS[:2]}, "another texts", id="held-out text"),
        pytest.param({"task_texts": ["Hello"]}, "another texts", id="held-out dialogs"),
        pytest.param({"task_examples": Dataset.from_dict({"input_ids": [[1] * 16]})}, "another data", id="examples"),
    ],
)
def test_other_data_in_the_same_folder_are_refused(model, data, folder, change, message):
    with pytest.raises(ValueError, match=message):
        study(model, dataclasses.replace(data, **change), folder)


@pytest.mark.parametrize("change", [{"num_examples": 4}, {"window": 8}, {"stride": 3}, {"max_document_tokens": 5}])
def test_another_measurement_in_the_same_folder_is_refused(model, data, folder, change):
    other = dataclasses.replace(MEASUREMENT, **change)
    with pytest.raises(ValueError, match="another measurement"):
        run_study(model, data, parse_settings(SETTINGS), SEEDS, training(folder), other)


def test_another_model_in_the_same_folder_is_refused(model, data, folder, tmp_path):
    with pytest.raises(ValueError, match="another model"):
        study(save_tiny_checkpoint(tmp_path / "other", context=32), data, folder)


def test_what_does_not_change_a_number_is_no_other_protocol(model, data, first, folder):
    assert study(model, data, folder, logging_steps=1, disable_tqdm=False) == first[1]


@pytest.mark.parametrize("change", [{"adam_beta2": 0.9}, {"label_smoothing_factor": 0.1}, {"bf16": True}], ids=str)
def test_every_argument_that_changes_a_number_belongs_to_the_protocol(model, data, folder, change):
    with pytest.raises(ValueError, match="another training"):
        study(model, data, folder, **change)


def test_other_weights_at_the_same_place_are_another_model(data, tmp_path):
    for context in (16, 32):
        model = save_tiny_checkpoint(tmp_path / "model", context)
        with pytest.raises(ValueError, match="another model") if context == 32 else nullcontext():
            run_study(model, data, [Setting("plain")], [0], training(tmp_path / "out"), MEASUREMENT)


def test_an_unknown_method_is_named(model, data, tmp_path):
    with pytest.raises(ValueError, match=r"magic is not a valid .*'fisher', 'mas'"):
        run_study(model, data, parse_settings(["magic:loss:1"]), [0], training(tmp_path), MEASUREMENT)
    assert not (tmp_path / "runs").exists()


def test_runs_leave_no_checkpoints_in_the_studys_folder(model, data, tmp_path):
    run_study(model, data, [Setting("plain")], [0], training(tmp_path, save_strategy="steps"), MEASUREMENT)
    assert list(tmp_path.glob("checkpoint-*")) == []


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        ([], ["plain"]),
        (["plain"], ["plain"]),
        (["plain", "plain"], ["plain"]),
        (["l2:loss:1"], ["plain", "l2-loss-1"]),
        (["fisher:loss:10,30,100"], ["plain", "fisher-loss-10", "fisher-loss-30", "fisher-loss-100"]),
        (["fisher:decoupled:0.5", "mas:loss:1e-3"], ["plain", "fisher-decoupled-0.5", "mas-loss-0.001"]),
        (["l2:loss:1", "plain"], ["plain", "l2-loss-1"]),
    ],
)
def test_settings_are_read(specs, names):
    settings = parse_settings(specs)
    assert [setting.name for setting in settings] == names
    assert settings[0] == Setting("plain", None, 0.0)


def test_a_setting_has_its_parts():
    assert parse_settings(["fisher:decoupled:2.5"])[1] == Setting("fisher", "decoupled", 2.5)


@pytest.mark.parametrize(
    "spec",
    ["fisher", "fisher:loss", "fisher:loss:", "fisher:loss:1,", "fisher:loss:ten", "fisher:lost:10", "a:loss:1:2", ""],
)
def test_settings_of_another_form_are_named(spec):
    with pytest.raises(ValueError, match=rf"like 'plain' or 'fisher:loss:10,30,100', got '{spec}'"):
        parse_settings([spec])


@pytest.mark.parametrize("strengths", ["0", "-5", "nan", "inf", "10,10"])
def test_strengths_are_positive_finite_and_distinct(strengths):
    with pytest.raises(ValueError, match=strengths.split(",")[0]):
        parse_settings([f"fisher:loss:{strengths}"])


@pytest.mark.parametrize("method", ["plain", "pretrained"])
def test_plain_and_pretrained_take_no_strength(method):
    with pytest.raises(ValueError, match=method):
        parse_settings([f"{method}:loss:1"])


def test_the_recipe(model, tmp_path, monkeypatch, capsys):
    Dataset.from_dict({"text": BOOKS}).to_parquet(tmp_path / "books.parquet")
    Dataset.from_dict({"turns": DIALOGS}).to_parquet(tmp_path / "dialogs.parquet")
    (tmp_path / "study.yaml").write_text(
        f"model: {model}\nmax_steps: 9\nlearning_rate: 1e-2\nuse_cpu: true\nreport_to: none\nsave_strategy: 'no'\n"
        "disable_tqdm: true\nblock_size: 16\nnum_examples: 4\n"
    )
    words = f"--retention {tmp_path}/books.parquet --retention_test {tmp_path}/books.parquet "
    words += f"--dialogs {tmp_path}/dialogs.parquet --dialogs_test {tmp_path}/dialogs.parquet --learn_from a "
    words += f"--settings l2:loss:1 --seeds 3 --max_steps 2 --output_dir {tmp_path}/out --config {tmp_path}/study.yaml"
    monkeypatch.setattr(sys, "argv", ["forgetting_study.py", *words.split()])
    runpy.run_path(str(RECIPE), run_name="__main__")
    records = read_records(tmp_path / "out/report.json")
    assert [(r.name, r.seed) for r in records] == [("pretrained", None), ("plain", 3), ("l2-loss-1", 3)]
    assert json.loads((tmp_path / "out/protocol.json").read_text())["training"]["max_steps"] == 2
    assert "| l2-loss-1 " in capsys.readouterr().out
