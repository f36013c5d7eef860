"""The command `ewc-hf rehearse` as a user calls it."""

import json
from pathlib import Path

import pytest
import torch
from tiny import SENTENCES, save_tiny_checkpoint, tiny_gpt2, tiny_tokenizer
from transformers import AutoModelForCausalLM

from ewc_hf.__main__ import main
from ewc_hf.data import load_texts, pack
from ewc_hf.rehearsal import REHEARSAL_CONFIG, REHEARSAL_ROWS, Rehearsal, answer_rehearsal, batches, generate_rehearsal

pytestmark = pytest.mark.usefixtures("datasets_cache")
WORDS = ["--num_rows", "6", "--num_tokens", "12", "--top_k", "5", "--batch_size", "2"]
OPTIONS = {"num_rows": 6, "num_tokens": 12, "top_k": 5, "batch_size": 2, "progress": False}


@pytest.fixture
def model(tmp_path):
    return save_tiny_checkpoint(tmp_path / "model")


@pytest.fixture
def old_text(tmp_path):
    path = tmp_path / "books.jsonl"
    lines = [json.dumps({"text": f"{number} {text}"}) for number, text in enumerate(SENTENCES * 4)]
    path.write_text("\n".join(lines))
    return str(path)


def call(*words):
    main(["rehearse", *words])


def content(rehearsal):
    return rehearsal.rows.with_format("arrow")[:].to_pydict()


def stored(folder):
    return content(Rehearsal.from_pretrained(folder))


def test_rows_are_stored_beside_the_model_and_described(model, capsys):
    call("--model", model, *WORDS)
    path = Path(model) / REHEARSAL_ROWS
    expected = generate_rehearsal(tiny_gpt2(), tiny_tokenizer(), **OPTIONS)
    assert stored(model) == content(expected)
    assert not (Path(model) / "rehearsal_unfinished").exists()
    sample = tiny_tokenizer().decode(expected.rows[0]["input_ids"])
    assert capsys.readouterr().out.splitlines() == [
        "rows              6 of 12 tokens",
        "tokens            72",
        "answers           5 a position, and draws from all others",
        f"file              {path}, {path.stat().st_size / 2**20:.1f} MiB",
        f"sample            {sample[:200]!r}",
    ]
    assert isinstance(AutoModelForCausalLM.from_pretrained(model), torch.nn.Module)


def test_a_sample_is_no_longer_than_200_characters(tmp_path, capsys):
    model = save_tiny_checkpoint(tmp_path / "long", context=400)
    call("--model", model, *WORDS[:2], "--num_tokens", "400", "--top_k", "1")
    text = tiny_tokenizer().decode(stored(model)["input_ids"][0])
    assert len(text) > 200 and f"sample            {text[:200]!r}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--temperature", "0.5", "--seed", "3"], {"temperature": 0.5, "seed": 3}),
        (["--chat"], {"chat": True}),
    ],
    ids=["draws", "chat"],
)
def test_its_options_are_those_of_the_function(tmp_path, model, words, options):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}<|{{ message.role }}|> {{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(model)
    call("--model", model, "--output_dir", str(tmp_path / "out" / "rows"), *WORDS, *words)
    assert stored(tmp_path / "out" / "rows") == content(
        generate_rehearsal(tiny_gpt2(), tokenizer, **OPTIONS, **options)
    )


def test_a_model_may_answer_in_bfloat16(model):
    call("--model", model, *WORDS, "--dtype", "bfloat16")
    expected = generate_rehearsal(tiny_gpt2(dtype=torch.bfloat16), tiny_tokenizer(), **OPTIONS)
    assert stored(model) == content(expected)


def test_old_text_takes_the_place_of_the_models(model, old_text, capsys):
    words = ["--column", "text", "--max_documents", "9", "--seed", "3"]
    call("--model", model, "--text", old_text, *WORDS, *words)
    texts = load_texts(old_text, max_documents=9, seed=3)
    blocks = pack(texts, tiny_tokenizer(), 12, max_blocks=6, seed=3)
    expected = answer_rehearsal(tiny_gpt2(), blocks, top_k=5, batch_size=2, progress=False)
    assert stored(model) == content(expected) and len(expected) == 6
    assert Rehearsal.from_pretrained(model).metadata["source"] == "text"
    assert "rows              6 of 12 tokens" in capsys.readouterr().out


def test_less_old_text_makes_fewer_rows(model, old_text, capsys):
    call("--model", model, "--text", old_text, "--max_documents", "2", *WORDS[2:])
    made = len(Rehearsal.from_pretrained(model))
    assert 0 < made < 10 and f"rows              {made} of 12 tokens" in capsys.readouterr().out


class Interrupted(Exception):
    pass


@pytest.fixture
def made(monkeypatch):
    """How many batches are made; before the one after `stop_at` it is interrupted."""
    numbers, to_table = [], batches.to_table

    def count(*rows):
        if len(numbers) == count.stop_at:
            raise Interrupted
        numbers.append(len(rows))
        return to_table(*rows)

    count.stop_at, count.numbers = None, numbers
    monkeypatch.setattr(batches, "to_table", count)
    return count


@pytest.mark.parametrize("mode", ["written", "answered"])
@pytest.mark.parametrize(("words", "again"), [(["--resume"], 1), ([], 3)], ids=["resume", "anew"])
def test_an_interrupted_call_goes_on_only_if_asked(tmp_path, model, old_text, made, mode, words, again):
    given = ["--model", model, *WORDS, *(["--text", old_text] if mode == "answered" else [])]
    call(*given, "--output_dir", str(tmp_path / "whole"))
    made.numbers.clear()
    made.stop_at = 2
    with pytest.raises(Interrupted):
        call(*given)
    assert len(list((Path(model) / "rehearsal_unfinished").glob("rows-*.parquet"))) == 2
    made.numbers.clear()
    made.stop_at = None
    call(*given, *words)
    assert len(made.numbers) == again
    assert stored(model) == stored(tmp_path / "whole")
    assert not (Path(model) / "rehearsal_unfinished").exists()


def test_to_go_on_with_other_options_is_refused(model, made):
    made.stop_at = 1
    with pytest.raises(Interrupted):
        call("--model", model, *WORDS)
    with pytest.raises(SystemExit, match="got another seed; repeat the options, or remove the folder to begin anew"):
        call("--model", model, *WORDS, "--resume", "--seed", "1")


REFUSED = {
    "no folder": (
        ["--model", "some/model"],
        "expected output_dir beside a model from the Hub, 'some/model', got None",
    ),
    "temperature of text": (
        ["--text", "t.txt", "--temperature", "0.5"],
        "expected no text for temperature, which has no effect else, got temperature=0.5; leave one of them out",
    ),
    "chat of text": (
        ["--text", "t.txt", "--chat"],
        "expected no text for chat, which has no effect else, got chat=Tr",
    ),
    "both": (
        ["--text", "t.txt", "--chat", "--temperature", "2"],
        "expected no text for temperature, chat, which have no effect else, got temperature=2.0, chat=True; leave",
    ),
    "column": (["--column", "text"], "expected text for column, which has no effect else, got column=text; leave one"),
    "split": (["--split", "test"], "expected text for split, which has no effect else, got split=test"),
    "documents": (["--max_documents", "3"], "expected text for max_documents, which has no effect else, got max_doc"),
    "no rows": (["--num_rows", "0"], "expected num_rows >= 1, got 0"),
    "no rows of text": (["--text", "TEXT", "--num_rows", "0"], "expected max_blocks >= 1, got 0"),
    "past the context": (["--num_tokens", "17"], "expected sequences of at most 16 tokens, the model's context"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_one_line_and_nothing_is_stored(model, old_text, words, message):
    words = [old_text if word == "TEXT" else word for word in words]
    words = words if "--model" in words else ["--model", model, *words]
    with pytest.raises(SystemExit, match=f"ewc-hf rehearse: .*{message}"):
        call(*words)
    names = {path.name for path in Path(model).iterdir()}
    assert not names & {REHEARSAL_CONFIG, REHEARSAL_ROWS, "rehearsal_unfinished"}


def test_the_recipe_is_the_command(model, run_recipe, capsys):
    run_recipe("generate_rehearsal.py", "--model", model, *WORDS)
    assert "rows              6 of 12 tokens" in capsys.readouterr().out
    assert len(Rehearsal.from_pretrained(model)) == 6
