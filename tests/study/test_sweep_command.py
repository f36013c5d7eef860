"""The command `ewc-hf sweep` as a user calls it, interrupted and taken up again."""

import json

import pytest
from books_and_dialogs import BOOKS, DIALOGS
from datasets import Dataset
from tiny import save_tiny_checkpoint

from ewc_hf.__main__ import main
from ewc_hf.study import training

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def words(tmp_path):
    """What the command needs, but the output folder."""
    model = save_tiny_checkpoint(tmp_path / "model")
    Dataset.from_dict({"text": BOOKS}).to_parquet(tmp_path / "books.parquet")
    Dataset.from_dict({"turns": DIALOGS}).to_parquet(tmp_path / "dialogs.parquet")
    words = f"sweep --model {model} --max_steps 3 --learning_rate 1e-2 --block_size 16 --num_examples 4 --use_cpu "
    words += "--save_strategy no --report_to none --disable_tqdm true --lambdas 3 30 --methods fisher mas --seeds 0 1 "
    for text, file in (("retention", "books"), ("task", "dialogs")):
        words += f"--{text} {tmp_path}/{file}.parquet --{text}_test {tmp_path}/{file}.parquet "
    return words.split()


def test_an_interrupted_sweep_goes_on_to_the_same_records(tmp_path, words, monkeypatch, capsys):
    main([*words, "--output_dir", str(tmp_path / "whole")])
    assert capsys.readouterr().out.count("| decoupled ") == 2
    whole = json.loads((tmp_path / "whole/sweep.json").read_text())
    assert [[point["ewc_lambda"] for point in sweep["points"]] for sweep in whole["sweeps"]] == [[0, 3, 30]] * 2
    assert all(point["num_runs"] == 2 for sweep in whole["sweeps"] for point in sweep["points"])

    train, trained = training.EWCTrainer.train, []

    def interrupted(trainer, *args, **kwargs):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(1)
        return train(trainer, *args, **kwargs)

    with (
        monkeypatch.context() as patched,
        pytest.raises(SystemExit, match="ewc-hf sweep: interrupted; finished runs are kept"),
    ):
        patched.setattr(training.EWCTrainer, "train", interrupted)
        main([*words, "--output_dir", str(tmp_path / "parts")])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts/runs").iterdir()}
    assert len(kept) == 5, "pretrained, and four that were trained"
    assert not (tmp_path / "parts/sweep.json").exists()
    main([*words, "--output_dir", str(tmp_path / "parts")])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in ("sweep.json", "sweep.md"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert (tmp_path / "parts/sweep.png").read_bytes().startswith(b"\x89PNG")


def test_lambda_belongs_to_the_grid(tmp_path, words):
    with pytest.raises(SystemExit, match="expected the grid in --lambdas, got --ewc_lambda 3 besides; leave it out"):
        main([*words, "--ewc_lambda", "3", "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
