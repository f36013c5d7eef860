"""Dialogs written as text, and whose words of them are learned."""

import pytest
from datasets import Dataset
from dialogs import MESSAGES, TURNS, WRITTEN
from tiny import tiny_tokenizer

from ewc_hf.data import document_texts, pack
from ewc_hf.data.chat import chat_of, lines_of

GREETING = [{"role": "ann", "content": [{"type": "text", "text": "Hello there!"}]}]


def in_parts(turn):
    """What is said in two parts, of which Arrow fills the keys that other parts of the column have."""
    middle = len(turn["content"]) // 2
    halves = turn["content"][:middle], turn["content"][middle:]
    return {**turn, "content": [{"type": "text", "text": half, "image": None} for half in halves]}


@pytest.mark.parametrize(
    "turns", [TURNS, MESSAGES, [*map(in_parts, MESSAGES)]], ids=["turns", "messages", "messages in parts"]
)
@pytest.mark.parametrize("learn_from", [None, "ann", "bob", "nobody"])
def test_segments_join_to_the_text(turns, learn_from):
    segments = lines_of(chat_of(turns), learn_from)
    assert "".join(text for text, _ in segments) == WRITTEN
    learned = "".join(text for text, learned in segments if learned)
    said = {"ann": " Hello there!\n \n", "bob": " Snow  fell, 🥊 and\nthe river… \n bob: I am well\n", "nobody": ""}
    assert learned == (WRITTEN if learn_from is None else said[learn_from])


@pytest.mark.parametrize(
    "turn", [{"speaker": "ann", "content": "x"}, {"role": "ann", "text": "x"}, {"text": "x"}, {"from": "ann"}]
)
def test_a_turn_without_its_keys_is_named(turn):
    with pytest.raises(ValueError, match=r"'from' and 'value' or 'speaker' and 'text', got \["):
        chat_of([turn])


NO_TEXT = {
    "a picture among the parts": [{"role": "ann", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
    "a text part without text": [{"role": "ann", "content": [{"type": "text", "text": None}]}],
    "a part that is no mapping": [{"role": "ann", "content": ["a"]}],
    "None": [{"role": "ann", "content": None}],
    "a number": [{"role": "ann", "content": 5}],
    "a picture": [{"role": "ann", "content": {"type": "image"}}],
    "the text of a turn": [{"speaker": "ann", "text": None}],
    "a role": [{"role": None, "content": "a"}],
    "a speaker": [{"speaker": 3, "text": "a"}],
    "a turn": [None],
    "a dialog": None,
}


@pytest.mark.parametrize("dialog", NO_TEXT.values(), ids=NO_TEXT.keys())
@pytest.mark.parametrize(
    "read",
    [
        document_texts,
        lambda dataset: pack(dataset, tiny_tokenizer(), 4),
        lambda dataset: pack(dataset, tiny_tokenizer(), 4, learn_from="bob"),
    ],
    ids=["document_texts", "pack", "pack for a speaker"],
)
@pytest.mark.usefixtures("datasets_cache")
def test_what_is_no_text_is_refused_with_its_row(read, dialog):
    with pytest.raises(ValueError, match=r"row 0: expected .*, got .*; filter such rows out|row 0: .*rename the keys"):
        read(Dataset.from_dict({"messages": [dialog]}))


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("number", [1, 1500])
def test_the_row_is_that_of_the_dataset(number):
    dialogs = [GREETING] * 2000
    dialogs[number] = [{"role": "ann", "content": [{"type": "image", "text": None}]}]
    with pytest.raises(ValueError, match=rf"row {number}: expected what is said as a text .*'image'"):
        document_texts(Dataset.from_dict({"messages": dialogs}))
    with pytest.raises(ValueError, match=rf"row {number}: "):
        pack(Dataset.from_dict({"messages": dialogs}), tiny_tokenizer(), 4)
    with pytest.raises(ValueError, match=rf"row {number}: "):
        pack(Dataset.from_dict({"messages": dialogs}), tiny_tokenizer(), 4, learn_from="bob")
