"""Rows that are made a batch at a time go on where an interrupted call left off."""

import json

import pytest
from rehearsed import answered, bits, generated, texts
from tiny import tiny_gpt2, tiny_tokenizer

from ewc_hf.rehearsal import generate


class Interrupted(Exception):
    pass


@pytest.fixture
def batches(monkeypatch):
    """How many rows each batch has that is made; `stop_at` interrupts before that batch."""
    sizes, answers_to = [], generate.answers_to

    def count(model, rows, *options):
        if len(sizes) == count.stop_at:
            raise Interrupted
        sizes.append(len(rows))
        return answers_to(model, rows, *options)

    count.stop_at, count.sizes = None, sizes
    monkeypatch.setattr(generate, "answers_to", count)
    return count


WAYS = {"generated": generated, "answered": lambda **options: answered(texts(*range(3, 13)), **options)}


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
def test_an_interrupted_call_goes_on_to_the_same_rows(tmp_path, batches, make):
    whole = make()
    assert batches.sizes == [4, 4, 2]
    for stop_at in (1, 1, 0):
        batches.sizes.clear()
        batches.stop_at = stop_at
        with pytest.raises(Interrupted):
            make(resume_folder=tmp_path / "unfinished")
    assert sorted(path.name for path in (tmp_path / "unfinished").iterdir()) == [
        "identity.json", "rows-00000000.parquet", "rows-00000004.parquet",
    ]  # fmt: skip
    batches.sizes.clear()
    batches.stop_at = None
    resumed = make(resume_folder=tmp_path / "unfinished")
    assert batches.sizes == [2]
    assert bits(resumed) == bits(whole) and resumed.metadata == whole.metadata
    assert len(list((tmp_path / "unfinished").glob("rows-*.parquet"))) == 3, "they may still be lost"
    resumed.save_pretrained(tmp_path / "saved")
    resumed.save_pretrained(tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "saved"]


def test_a_call_that_nothing_interrupts_leaves_no_folder(tmp_path):
    rehearsal = generated(resume_folder=tmp_path / "a" / "b")
    assert bits(rehearsal) == bits(generated())
    rehearsal.save_pretrained(tmp_path / "saved")
    assert list((tmp_path / "a").iterdir()) == []


def begun(folder, batches, make=generated, **options):
    """A call that was interrupted after its first batch."""
    batches.sizes.clear()
    batches.stop_at = 1
    with pytest.raises(Interrupted):
        make(resume_folder=folder, **options)
    batches.sizes.clear()
    batches.stop_at = None


OTHER_ROWS = {
    "seed": {"seed": 1},
    "temperature": {"temperature": 0.5},
    "num_rows": {"num_rows": 11},
    "num_tokens": {"num_tokens": 13},
    "top_k": {"top_k": 6},
    "batch_size": {"batch_size": 5},
    "model": {"model": tiny_gpt2(seed=1)},
    "prompt, tokenizer": {"tokenizer": tiny_tokenizer(bos_token="<|begin|>", sentences=["a b"])},
}


@pytest.mark.parametrize(("what", "options"), OTHER_ROWS.items(), ids=OTHER_ROWS)
def test_a_folder_of_other_rows_is_refused_by_what_differs(tmp_path, batches, what, options):
    begun(tmp_path, batches)
    with pytest.raises(ValueError, match=rf"expected the rows that were begun in '.*', got another {what}; repeat"):
        generated(resume_folder=tmp_path, **options)
    assert batches.sizes == [] and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("rows", "what"),
    [(texts(4, 8), "text"), (texts(4, 8, 6), "num_rows, text"), (texts(4, 9), "num_tokens, text")],
    ids=["cut elsewhere", "more", "longer"],
)
def test_a_folder_of_other_text_is_refused(tmp_path, batches, rows, what):
    whole = texts(12)[0]["input_ids"]
    begun(tmp_path, batches, answered, rows=[{"input_ids": whole[:8]}, {"input_ids": whole[8:]}], batch_size=1)
    with pytest.raises(ValueError, match=f"got another {what}"):
        answered(rows, resume_folder=tmp_path, batch_size=1)


def test_rows_of_a_model_and_of_text_are_not_mixed(tmp_path, batches):
    begun(tmp_path, batches)
    with pytest.raises(ValueError, match=r"got another .*source.*temperature.*text"):
        answered(texts(*[12] * 10), resume_folder=tmp_path)


def test_the_model_s_name_may_change(tmp_path, batches):
    """It is told, and the rows do not depend on it."""
    begun(tmp_path, batches)
    model = tiny_gpt2()
    model.name_or_path = "elsewhere"
    assert generated(model, resume_folder=tmp_path).metadata["model_name"] == "elsewhere"
    assert batches.sizes == [4, 2]


def test_batches_without_what_they_are_of_are_refused(tmp_path, batches):
    begun(tmp_path, batches)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(ValueError, match=r"expected the file 'identity.json' in .*got no such file"):
        generated(resume_folder=tmp_path)


def test_halves_that_a_killed_process_left_go_and_other_files_stay(tmp_path, batches):
    begun(tmp_path, batches)
    (tmp_path / ".rows-00000004.parquet.1234.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert json.loads((tmp_path / "identity.json").read_text())["seed"] == 0
    rehearsal = generated(resume_folder=tmp_path)
    assert bits(rehearsal) == bits(generated())
    rehearsal.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "saved"]


def test_the_progress_bar_counts_batches(capsys):
    generated(progress=True)
    assert "writing rehearsal rows" in (err := capsys.readouterr().err) and "3/3" in err
    answered(texts(5, 6), progress=True, batch_size=1)
    assert "answering rehearsal rows" in (err := capsys.readouterr().err) and "2/2" in err
