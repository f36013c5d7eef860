"""Rows beside a checkpoint: written, read again, and refused where they are not those that were written."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from rehearsed import answered, bits, generated, texts
from tiny import tiny_gpt2

from ewc_hf.rehearsal import REHEARSAL_CONFIG, REHEARSAL_ROWS, Answers, Rehearsal
from ewc_hf.rehearsal.answers import DRAWS
from ewc_hf.rehearsal.columns import to_table, to_tensors
from ewc_hf.storage import sha256

pytestmark = pytest.mark.usefixtures("datasets_cache")

MADE = {
    "generated": generated,
    "of several lengths": lambda: answered(texts(5, 9, 1, 16)),
    "exact": lambda: generated(tiny_gpt2(dtype=torch.float64)),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_is_saved_is_read_to_the_bit(tmp_path, make):
    rehearsal = make()
    rehearsal.save_pretrained(tmp_path / "new" / "folder")
    read = Rehearsal.from_pretrained(tmp_path / "new" / "folder")
    assert bits(read) == bits(rehearsal) and len(read) == len(rehearsal)
    assert read.metadata == rehearsal.metadata
    read.save_pretrained(tmp_path / "new" / "folder")
    assert bits(Rehearsal.from_pretrained(tmp_path / "new" / "folder")) == bits(rehearsal)


def test_they_lie_beside_a_checkpoint_and_nothing_else_does(tmp_path, checkpoint):
    before = {path.name for path in checkpoint.iterdir()}
    generated().save_pretrained(checkpoint)
    assert {path.name for path in checkpoint.iterdir()} == before | {REHEARSAL_CONFIG, REHEARSAL_ROWS}


def test_other_rows_in_their_place_are_read_as_these(tmp_path):
    """`datasets` keeps a copy of what it has read."""
    generated().save_pretrained(tmp_path)
    Rehearsal.from_pretrained(tmp_path)
    other = generated(seed=1)
    other.save_pretrained(tmp_path)
    assert bits(Rehearsal.from_pretrained(tmp_path)) == bits(other)


def edit(folder, **changes):
    path = folder / REHEARSAL_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def put(folder, table):
    """Other rows, which the configuration takes for its own."""
    pq.write_table(table, folder / REHEARSAL_ROWS)
    edit(folder, sha256=sha256(folder / REHEARSAL_ROWS))


def without(folder, key):
    path = folder / REHEARSAL_CONFIG
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def of(folder):
    return pq.read_table(folder / REHEARSAL_ROWS)


OTHER = "expected rehearsal rows of format 2 in '.*rehearsal_config.json', got another content"
DAMAGES = {
    "missing config": (lambda f: (f / REHEARSAL_CONFIG).unlink(), "file 'rehearsal_config.json' in .* no such file"),
    "malformed config": (lambda f: (f / REHEARSAL_CONFIG).write_text("{"), "expected JSON in '.*rehearsal_config"),
    "no object": (lambda f: (f / REHEARSAL_CONFIG).write_text("[]"), OTHER),
    "another format": (lambda f: edit(f, format=1), OTHER),
    "missing key": (lambda f: without(f, "top_k"), OTHER),
    "missing rows": (lambda f: (f / REHEARSAL_ROWS).unlink(), "expected the file 'rehearsal.parquet' in .*copy it"),
    "truncated rows": (lambda f: cut(f / REHEARSAL_ROWS), "SHA-256 .* of '.*rehearsal.parquet', .*truncated or chang"),
    "fewer rows": (lambda f: put(f, of(f)[:-1]), r"expected 10 rows with the columns \[.*got 9 with \['input_ids'"),
    "other columns": (
        lambda f: put(f, of(f).drop_columns(["rest"])),
        r"'rest'\] in .*got 10 with \['input_ids', 'answer_ids', 'log_probs'\]; generate",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(tmp_path, damage, message):
    generated().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        Rehearsal.from_pretrained(tmp_path)


def test_a_source_that_is_nowhere_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="expected a folder or a Hub id that can be reached, got 'no/such'"):
        Rehearsal.from_pretrained("no/such")


def random_rows(num_rows, num_tokens, top_k, vocab_size):
    """Numbers that nothing can compress but their type: more than any model's."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (num_rows, num_tokens), generator=draws)
    answer_ids = torch.randint(0, vocab_size, (num_rows, num_tokens, top_k), generator=draws)
    log_probs = -20 * torch.rand(num_rows, num_tokens, top_k, generator=draws)
    rest = torch.rand(num_rows, num_tokens, generator=draws)
    return list(ids), [Answers(*row) for row in zip(answer_ids, log_probs, rest, strict=True)]


def test_as_many_rows_as_usual_stay_below_60_megabytes(tmp_path):
    """A quarter of 2,048 rows of 128 tokens, of a large vocabulary."""
    table = to_table(*random_rows(512, 128, 32 + DRAWS, 150_000))
    Rehearsal(Dataset(InMemoryTable(table)), {"format": 2}).save_pretrained(tmp_path)
    assert (tmp_path / REHEARSAL_ROWS).stat().st_size < 60e6 / 4


def test_columns_and_tensors_are_the_same_numbers():
    """Rows of several lengths, of tables in several pieces, of which a part is taken."""
    rows, answers = random_rows(6, 9, 3, 100)
    rows = [row[: 4 + number] for number, row in enumerate(rows)]
    answers = [Answers(a.ids[:n], a.log_probs[:n], a.rest[:n]) for n, a in zip(map(len, rows), answers, strict=True)]
    table = pa.concat_tables([to_table(rows[:2], answers[:2]), to_table(rows[2:], answers[2:])])
    parts = {(1, 2, 3, 4): table[1:5], (3, 4): table[3:5], (5, 0, 3): table.take([5, 0, 3])}
    for chosen, part in parts.items():
        ids, lengths, got = to_tensors(part)
        assert lengths.tolist() == [len(rows[number]) for number in chosen]
        for place, number in enumerate(chosen):
            length = len(rows[number])
            assert torch.equal(ids[place, :length], rows[number]) and not ids[place, length:].any()
            assert torch.equal(got.ids[place, :length], answers[number].ids)
            assert torch.equal(got.log_probs[place, :length], answers[number].log_probs.half())
            assert torch.equal(got.rest[place, :length], answers[number].rest)
