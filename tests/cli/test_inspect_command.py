"""The command `ewc-hf inspect` as a user calls it."""

import re

import pytest
import torch
from tiny import SENTENCES, save_tiny_checkpoint, tiny_gpt2, tiny_tokenizer

from ewc_hf import estimate_importance
from ewc_hf.__main__ import main
from ewc_hf.evaluation import token_losses

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("old", "tuned")):
        save_tiny_checkpoint(tmp_path / name, seed=seed)
    (tmp_path / "books.txt").write_text(" ".join(SENTENCES))
    examples = [{"input_ids": list(range(first, first + 10))} for first in range(4)]
    estimate_importance(tiny_gpt2(), examples, num_examples=4, progress=False).save_pretrained(tmp_path / "old")
    return tmp_path


def test_an_importance_is_told_and_drawn(folder, capsys):
    main(["inspect", "--consolidation", str(folder / "old"), "--output_dir", str(folder / "out")])
    printed = capsys.readouterr().out
    assert "Consolidation(fisher with ground_truth labels" in printed and "| transformer.h.*.mlp.c_fc " in printed
    assert (folder / "out/importance.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "out/tokens.html").exists()


def test_the_tokens_that_were_forgotten(folder, capsys):
    models = ["--base", str(folder / "old"), "--tuned", str(folder / "tuned"), "--text", str(folder / "books.txt")]
    main(["inspect", *models, "--tokens", "4", "--output_dir", str(folder / "out")])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| …")]
    losses = [
        torch.tensor([each.nll for each in token_losses(tiny_gpt2(seed=seed), tiny_tokenizer(), " ".join(SENTENCES))])
        for seed in (0, 1)
    ]
    worst = (losses[1] - losses[0]).sort(descending=True).values[:4]
    assert [row.split("|")[-2].strip() for row in rows] == [f"{rise:+.2f}" for rise in worst.tolist()]
    page = (folder / "out/tokens.html").read_text()
    text = re.sub("<[^>]*>", "", page.partition("</p>")[2])
    assert " ".join(SENTENCES) in text
    assert not (folder / "out/importance.png").exists()


@pytest.mark.parametrize(
    "words",
    [[], ["--base", "a", "--tuned", "b"], ["--consolidation", "c", "--text", "t"]],
    ids=["nothing", "two", "one"],
)
def test_half_of_what_it_needs_is_refused(words):
    with pytest.raises(SystemExit, match="expected --consolidation, or --base, --tuned and --text together, or all"):
        main(["inspect", *words])
