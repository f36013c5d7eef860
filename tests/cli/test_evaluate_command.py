"""The command `ewc-hf evaluate` as a user calls it."""

import json

import pytest
from tiny import SENTENCES, save_tiny_checkpoint, tiny_tokenizer
from transformers import AutoModelForCausalLM

from ewc_hf import evaluate_perplexity
from ewc_hf.__main__ import main

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def words(tmp_path):
    for seed, name in enumerate(("old", "tuned")):
        save_tiny_checkpoint(tmp_path / name, seed=seed)
    for name in ("books", "dialogs"):
        (tmp_path / f"{name}.txt").write_text(" ".join(SENTENCES))
    return ["evaluate", "--model", str(tmp_path / "tuned"), "--text", f"books={tmp_path / 'books.txt'}"]


def stored(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def test_before_and_after_on_each_text(tmp_path, words, capsys):
    dialogs = str(tmp_path / "dialogs.txt")
    main([*words, dialogs, "--base", str(tmp_path / "old"), "--output_dir", str(tmp_path / "out")])
    assert capsys.readouterr().out == (tmp_path / "out" / "evaluation.md").read_text() + "\n"
    models = stored(tmp_path / "out")["models"]
    assert stored(tmp_path / "out")["settings"]["dtype"] == "float32"
    assert [list(model["texts"]) for model in models] == [["books", dialogs]] * 2
    for model in models:
        expected = evaluate_perplexity(
            AutoModelForCausalLM.from_pretrained(model["model"]),
            tiny_tokenizer(),
            [" ".join(SENTENCES)],
            progress=False,
        )
        assert model["texts"]["books"]["nll"] == pytest.approx(expected.nll)


def test_one_model_alone_is_printed(words, capsys):
    main(words)
    assert "| books |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["books=other.txt"], "expected texts of different names, got two of 'books'"),
        (["--benchmarks", "arc_easy", "--benchmark_folder", "no/folder"], "expected a folder of lm_eval's YAML files"),
        (["dialogs=no/such/file.txt"], "which does not exist"),
        (["--max_questions", "3"], "expected --benchmarks beside max_questions, got none; leave them out"),
    ],
)
def test_mistakes_are_one_line(words, more, message):
    with pytest.raises(SystemExit, match=message):
        main([*words, *more])


def test_nothing_to_measure_is_one_line(words):
    with pytest.raises(SystemExit, match="expected something to measure, got neither --text nor --benchmarks"):
        main(words[:3])
