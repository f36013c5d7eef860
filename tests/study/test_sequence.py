"""Several tasks in a row: what is remembered of each, what is reported, and that nothing runs twice."""

import json

import pytest
from small_study import small_data, training
from tiny import save_tiny_checkpoint, tiny_gpt2, tiny_tokenizer

from ewc_hf import EWCTrainer, generate_rehearsal
from ewc_hf.rehearsal import Rehearsal
from ewc_hf.study import (
    Measurement,
    SequenceRun,
    SequenceTask,
    average_forgetting,
    backward_transfer,
    parse_settings,
    run_sequence,
    write_sequence,
)
from ewc_hf.study.sequence_report import learned

MEASUREMENT = Measurement(num_examples=8, rehearsal_num_rows=32)
SETTINGS = ["plain", "fisher:decoupled:30", "rehearsal:1", "fisher:loss:3:rehearsal_weight=1"]


def tasks():
    data = small_data()
    halves = [data.task_examples.select(range(start, len(data.task_examples), 2)) for start in (0, 1)]
    texts = [data.task_texts[:1], data.task_texts[1:]]
    old = SequenceTask("books", data.retention_examples, data.retention_texts)
    return [old, SequenceTask("first", halves[0], texts[0]), SequenceTask("second", halves[1], texts[1])]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("sequence") / "model")


@pytest.fixture(scope="module")
def sequence(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        intact = EWCTrainer.train

        def train(self, *args, **kwargs):
            seen.append((self._remembered, self._rehearsal))
            return intact(self, *args, **kwargs)

        patch.setattr(EWCTrainer, "train", train)
        runs = run_sequence(model, tasks(), parse_settings(SETTINGS), [0, 1], training(folder), MEASUREMENT)
    return folder, runs, seen


def test_every_setting_learns_every_task_and_all_texts_are_measured_after_each(sequence):
    _, runs, _ = sequence
    assert [(run.setting, run.seed) for run in runs] == [
        (s.name, seed) for seed in (0, 1) for s in parse_settings(SETTINGS)
    ]
    assert all(len(run.nll) == 3 and all(len(row) == 3 for row in run.nll) for run in runs)
    assert len({tuple(run.nll[0]) for run in runs}) == 1, "before any training they are one model"
    assert len({tuple(run.nll[2]) for run in runs}) == len(runs)
    assert all(run.nll[1][1] < run.nll[0][1] and run.nll[2][2] < run.nll[1][2] for run in runs)


def test_importances_add_up_and_rows_are_joined_at_a_bounded_total(sequence):
    _, _, seen = sequence
    by_setting = [seen[start : start + 2] for start in range(0, len(seen), 2)][:4]
    (plain, ewc, rehearsal, both) = by_setting
    assert plain == [(None, None)] * 2
    for first, second in (ewc, both):
        assert [len(known[0].metadata["tasks"]) for known in (first, second)] == [1, 2]
        name = "transformer.wte.weight"
        assert (second[0].importance[name] >= first[0].importance[name]).all()
        assert (second[0].anchor[name] != first[0].anchor[name]).any(), "anchored where the model is by then"
    for first, second in (rehearsal, both):
        assert [rows.num_tasks for _, rows in (first, second)] == [1, 2]
        assert len(first[1]) == len(second[1]) == MEASUREMENT.rehearsal_num_rows
        old = {tuple(row) for row in first[1].rows["input_ids"]}
        assert sum(tuple(row) in old for row in second[1].rows["input_ids"]) == len(second[1]) // 2


def test_finished_runs_are_not_run_again(sequence, model, monkeypatch):
    folder, runs, _ = sequence
    monkeypatch.setattr(EWCTrainer, "train", lambda *args: pytest.fail("it is finished"))
    assert run_sequence(model, tasks(), parse_settings(SETTINGS), [0, 1], training(folder), MEASUREMENT) == runs


def test_another_order_of_tasks_is_refused_in_the_same_folder(sequence, model):
    folder, *_ = sequence
    old, first, second = tasks()
    with pytest.raises(ValueError, match="got another tasks; choose another output_dir"):
        run_sequence(model, [old, second, first], parse_settings(SETTINGS), [0], training(folder), MEASUREMENT)


@pytest.mark.parametrize(
    "setting",
    [
        "replay:0.5", "lora:2", "lwf:1", "old_answers:1", "l2:loss:1", "rehearsal:1:interpolated",
        "fisher:loss:1:importance_from=own",
    ],
)  # fmt: skip
def test_settings_of_another_kind_are_refused(tmp_path, model, setting):
    with pytest.raises(ValueError, match="expected settings that are plain, a penalty whose importance is estimated"):
        run_sequence(model, tasks(), parse_settings([setting]), [0], training(tmp_path), MEASUREMENT)


def test_equal_names_and_seeds_are_refused(tmp_path, model):
    old, first, second = tasks()
    for texts, seeds in (([old, first, first], [0]), ([old, first, second], [0, 0]), ([old], [0])):
        with pytest.raises(ValueError, match="expected the old text and tasks of different names, and each"):
            run_sequence(model, texts, parse_settings([]), seeds, training(tmp_path), MEASUREMENT)


def test_another_training_is_refused_in_the_same_folder(sequence, model):
    other = training(sequence[0], weight_decay=0.1)
    with pytest.raises(ValueError, match="got another training; choose another output_dir, or set weight_decay as"):
        run_sequence(model, tasks(), parse_settings(SETTINGS), [0], other, MEASUREMENT)


def test_a_budget_is_refused(tmp_path, model):
    with pytest.raises(ValueError, match="expected no max_forgetting of tasks in a row, whose texts are held out"):
        run_sequence(model, tasks(), parse_settings([]), [0], training(tmp_path, max_forgetting=1), MEASUREMENT)


def test_the_report_has_the_matrix_and_the_measures(tmp_path):
    runs = [
        SequenceRun("plain", seed, [[1.0, 9, 9], [2 + seed, 3.0, 9], [4.0 + seed, 3.5, 2.0]]) for seed in (0, 1)
    ]  # fmt: skip
    assert learned(runs[0]) == 2.5
    assert average_forgetting(runs[0]) == pytest.approx((3 + 0.5) / 2)
    assert backward_transfer(runs[0]) == pytest.approx(-(3 + 0.5) / 2)
    better = SequenceRun("x", 0, [[1.0, 9, 9], [0.5, 3.0, 9], [0.75, 2.5, 2.0]])
    assert average_forgetting(better) == pytest.approx((0.25 - 0.5) / 2), "from the best, not from when it was learned"
    assert backward_transfer(better) == pytest.approx((0.25 + 0.5) / 2)
    page = write_sequence(runs, ["books", "a", "b"], tmp_path, "Tasks")
    assert (tmp_path / "tasks.md").read_text() == page
    assert "| plain   | 2     | 2.500 ± 0.000 |" in page
    assert "| b     | 4.500 ± 6.353 | 3.500 ± 0.000 | 2.000 ± 0.000 |" in page
    assert json.loads((tmp_path / "tasks.json").read_text())["texts"] == ["books", "a", "b"]
    assert (tmp_path / "tasks.png").read_bytes().startswith(b"\x89PNG")


def rows(number=6, top_k=3, **options):
    return generate_rehearsal(tiny_gpt2(), tiny_tokenizer(), number, 5, top_k=top_k, progress=False, **options)


def test_rows_are_merged_about_equally_many_of_each_task(tmp_path):
    first, second, third = (rows(seed=seed) for seed in range(3))
    merged = first.merge(second, 6).merge(third, 6)
    merged.save_pretrained(tmp_path)
    read = Rehearsal.from_pretrained(tmp_path)
    assert len(read) == 6 and read.num_tasks == 3
    of = [sum(row in made.rows["input_ids"] for row in read.rows["input_ids"]) for made in (first, second, third)]
    assert sum(of) == 6 and of[2] == 2 and min(of) >= 1
    assert first.merge(second, 4, seed=1).rows[:] != first.merge(second, 4).rows[:]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            lambda: generate_rehearsal(tiny_gpt2(), tiny_tokenizer(), 6, 5, top_k=4, progress=False),
            "same top_k, got 3",
        ),
        (lambda: rows(1), "expected at least 3 rows to draw from, got 1; make more, or ask for fewer"),
    ],
)
def test_rows_that_do_not_go_together_are_refused(new, message):
    with pytest.raises(ValueError, match=message):
        rows().merge(new(), 6)
