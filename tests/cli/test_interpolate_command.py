"""The command `ewc-hf interpolate` as a user calls it."""

import json
import shlex

import pytest
from tiny import SENTENCES, save_tiny_checkpoint

from ewc_hf import interpolate
from ewc_hf.__main__ import main
from ewc_hf.data import document_texts, load_texts
from ewc_hf.study import TextNames

pytestmark = pytest.mark.usefixtures("datasets_cache")
DOCUMENTS = [" ".join(SENTENCES[number:] + SENTENCES[:number]) for number in range(3)] * 2


@pytest.fixture
def words(tmp_path):
    """What the command needs: two models and two texts, in files with a column of their own."""
    for seed, name in enumerate(("old", "tuned")):
        save_tiny_checkpoint(tmp_path / name, seed=seed)
    for name, texts in (("books", DOCUMENTS), ("dialogs", SENTENCES)):
        rows = "".join(json.dumps({"body": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    options = {
        "base": "old",
        "tuned": "tuned",
        "retention": "books.jsonl",
        "task": "dialogs.jsonl",
        "output_dir": "out",
    }
    words = [word for key, name in options.items() for word in (f"--{key}", str(tmp_path / name))]
    return ["interpolate", *words, "--retention_column", "body", "--task_column", "body"]


def stored(folder):
    return json.loads((folder / "interpolation.json").read_text(encoding="utf-8"))


def test_it_prints_the_curve_and_writes_it(tmp_path, words, capsys):
    main(words)
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    points = stored(tmp_path / "out")["points"]
    assert rows[0] == ["t", "perplexity on task", "perplexity on retention", "forgetting (nats)"]
    assert len(points) == 11
    assert rows[2:] == [
        [f"{p['t']:.4f}", f"{p['task_perplexity']:.2f}", f"{p['retention_perplexity']:.2f}", f"{p['forgetting']:.4f}"]
        for p in points
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"interpolation.json", "interpolation.png"}
    assert (tmp_path / "out" / "interpolation.png").read_bytes().startswith(b"\x89PNG")


def test_every_option_is_passed_on(tmp_path, words):
    """As the same call in code."""
    options = {"stride": 3, "window": 9, "max_document_tokens": 25, "batch_size": 2, "seed": 4, "points": 3}
    given = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    names = ["--task_name", "dialogs", "--retention_name", "books"]
    main([*words, *given, *names, "--bos_in_each_window", "--max_documents", "2"])
    retention, task = (
        document_texts(load_texts(str(tmp_path / f"{name}.jsonl"), max_documents=2, seed=4), "body")
        for name in ("books", "dialogs")
    )
    interpolate(
        tmp_path / "old", tmp_path / "tuned", retention, task, tmp_path / "in code", **options,
        bos_in_each_window=True, names=TextNames("dialogs", "books"), progress=False,
    )  # fmt: skip
    assert stored(tmp_path / "out") == stored(tmp_path / "in code")


@pytest.mark.parametrize("split", ["test", "later"])
def test_of_a_folder_a_split_is_read(tmp_path, words, split):
    for name in ("books", "dialogs"):
        (tmp_path / name).mkdir()
        for part, number in (("test", 2), ("later", 3)):
            rows = "".join(json.dumps({"body": text}) + "\n" for text in DOCUMENTS[:number])
            (tmp_path / name / f"{part}.jsonl").write_text(rows, encoding="utf-8")
    words = [word.replace("books.jsonl", "books").replace("dialogs.jsonl", "dialogs") for word in words]
    named = [] if split == "test" else ["--retention_split", split, "--task_split", split]
    main([*words, *named, "--points", "2"])
    got = stored(tmp_path / "out")["points"][1]
    interpolate(
        tmp_path / "old", tmp_path / "tuned", *[DOCUMENTS[: 2 if split == "test" else 3]] * 2, tmp_path / "in code",
        points=2, progress=False,
    )  # fmt: skip
    assert got == stored(tmp_path / "in code")["points"][1]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (["--max_forgetting", "100"], "t = 1, the largest t found that forgets at most 100 nats per token"),
        (["--max_task_loss", "+900%"], "t = 0, the smallest t found whose NLL on the task is at most 900% above"),
    ],
)
def test_the_chosen_model_is_told_with_its_command(tmp_path, words, capsys, budget, said):
    main([*words, *budget])
    printed = capsys.readouterr().out
    assert f"chosen    {said}" in printed and f"model     {tmp_path / 'out'}" in printed
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert shlex.join(["ewc-hf", *words, *budget]) in card
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_budget_may_stand_in_a_file(tmp_path, words):
    (tmp_path / "defaults.yaml").write_text("max_task_loss: 0.5\npoints: 3\n", encoding="utf-8")
    main([*words, "--config", str(tmp_path / "defaults.yaml")])
    assert stored(tmp_path / "out")["budget"] == {"max_task_loss": 0.5}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max_forgetting", "0.05", "--max_task_loss", "+2%"], "expected max_forgetting or max_task_loss, got both"),
        (["--max_forgetting", "-1"], "expected a positive, finite max_forgetting, got -1.0"),
        (["--max_forgetting", "nan"], "expected a positive, finite max_forgetting, got nan"),
        (["--max_task_loss", "2%%"], r"expected max_task_loss as '\+2%', '2%' or 0.02, got '2%%'"),
        (["--max_task_loss", "2"], r"expected max_task_loss as .*, got '2'; write '2%'"),
        (["--points", "1"], "expected points >= 2, the two ends among them, got 1"),
        (["--task_column", "none"], r"expected a column named none, got \['body'\]"),
        (["--task", "no/such.txt"], r"expected a file, .*, got 'no/such.txt', which does not exist"),
    ],
)
def test_mistakes_are_one_line(tmp_path, words, more, message):
    with pytest.raises(SystemExit, match=f"^ewc-hf interpolate: {message}"):
        main([*words, *more])
    assert not (tmp_path / "out").exists()


def test_its_help_tells_the_options(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["interpolate", "--help"])
    assert "so far above tuned: +2%." in " ".join(capsys.readouterr().out.split())
