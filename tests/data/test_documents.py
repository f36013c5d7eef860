"""What is made of rows, by the names of their columns."""

import gzip
import json

import pytest
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset
from templates import ANSWERED, ASKED, CHATS, TEMPLATES, templated_tokenizer
from tiny import EOS, SENTENCES, tiny_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from ewc_hf.data import IGNORED, document_texts, load_texts, pack
from ewc_hf.data.documents import encode, row_form

pytestmark = pytest.mark.usefixtures("datasets_cache")

PROMPT, COMPLETION = [ASKED], [ANSWERED]
SAID = "user: How are you today?\nassistant: I am well.\n"
ROWS = {
    "messages": ({"messages": [ASKED, ANSWERED]}, SAID, SAID),
    "messages as JSON": ({"messages": json.dumps([ASKED, ANSWERED])}, SAID, SAID),
    "turns as text": ({"turns": "Snow fell."}, "Snow fell.", "Snow fell."),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "human", "value": ASKED["content"]},
                {"from": "gpt", "value": ANSWERED["content"]},
            ]
        },
        SAID,
        SAID,
    ),
    "prompt and completion": ({"prompt": "Snow fell", "completion": " on it."}, "Snow fell on it.", " on it."),
    "prompt and completion, of messages": ({"prompt": PROMPT, "completion": COMPLETION}, SAID, " I am well.\n"),
    "instruction": (
        {"instruction": "Count.", "input": "", "output": "Three."},
        "user: Count.\nassistant: Three.\n",
        " Three.\n",
    ),
    "instruction with input": (
        {"instruction": "Count.", "input": "ships", "output": "Three.", "text": "the whole, once more"},
        "user: Count.\n\nships\nassistant: Three.\n",
        " Three.\n",
    ),
    "text": ({"text": "Snow fell."}, "Snow fell.", "Snow fell."),
}


@pytest.mark.parametrize(("row", "text", "learned"), ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("streams", [False, True])
def test_a_document(row, text, learned, streams):
    tokenizer, dataset = tiny_tokenizer(), Dataset.from_list([row])
    dataset = dataset.to_iterable_dataset() if streams else dataset
    assert document_texts(dataset) == [text]
    ids, labels = encode(row_form(dataset).document(next(iter(dataset)), 0), tokenizer)
    assert tokenizer.decode(ids) == text + EOS
    assert tokenizer.decode([token for token in labels if token != IGNORED]) == learned + EOS


def test_by_a_template_a_completion_is_what_follows_the_words_that_ask_for_it():
    tokenizer = templated_tokenizer(TEMPLATES["headers"], marked=False)
    for row in (
        {"prompt": PROMPT, "completion": COMPLETION},
        {"instruction": ASKED["content"], "output": "I am well."},
    ):
        document = row_form(Dataset.from_list([row])).document(row, 0)
        ids, labels = encode(document, tokenizer)
        assert tokenizer.decode(ids) == "<|user|>\nHow are you today?<|end|>\n<|assistant|>\nI am well.<|end|>\n"
        assert tokenizer.decode([token for token in labels if token != IGNORED]) == "I am well.<|end|>\n"


def test_tool_calls_are_json_where_there_is_no_template():
    (text,) = document_texts(Dataset.from_list([{"messages": CHATS["a tool call"]}]))
    (call,) = [line.removeprefix("assistant: ") for line in text.splitlines() if "ships" in line and "{" in line]
    assert json.loads(call) == CHATS["a tool call"][1]["tool_calls"]


def test_tools_are_told_to_the_template():
    tokenizer = templated_tokenizer(TEMPLATES["a beginning, tools and two line ends"], marked=True)
    tools = [{"type": "function", "function": {"name": "count"}}]
    for column in (json.dumps(tools), tools):
        (text,) = document_texts(
            Dataset.from_list([{"messages": CHATS["one turn"], "tools": column}]), tokenizer=tokenizer
        )
        assert '"name": "count"' in text.splitlines()[0]


def test_a_completion_is_learned_by_the_templates_marks():
    """Some templates ask for an answer in words that they write before none."""
    template = "{% for m in messages %}{{ m.role }}:{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
    template = template.replace("{% generation %}", "{% if m.role == 'assistant' %}{% generation %}", 1)
    template = template.replace("{% endgeneration %}", "{% endgeneration %}{% else %}{{ m.content }}{% endif %}", 1)
    tokenizer = templated_tokenizer(
        template + "{% if add_generation_prompt %}assistant: think{% endif %}", marked=True
    )
    row = {"prompt": PROMPT, "completion": COMPLETION}
    ids, labels = encode(row_form(Dataset.from_list([row])).document(row, 0), tokenizer)
    assert tokenizer.decode([token for token in labels if token != IGNORED]) == "I am well."
    assert tokenizer.decode(ids) == "user:How are you today?assistant:I am well."


REFUSED = {
    "no completion": ({"prompt": PROMPT, "completion": []}, "row 0: expected a completion of at least one message"),
    "numbers": ({"instruction": "Add", "input": 3, "output": "b"}, "row 0: expected instruction and input as texts"),
    "messages that are broken JSON": ({"messages": '[{"role": '}, "row 0: expected JSON in the column 'messages'"),
    "tools that are no JSON": (
        {"messages": PROMPT, "tools": "a hammer"},
        "row 0: expected JSON in the column 'tools'",
    ),
}


@pytest.mark.parametrize(("row", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_row_that_cannot_be_read_is_told_with_its_number(row, said):
    with pytest.raises(ValueError, match=said):
        pack(Dataset.from_list([row]), tiny_tokenizer(), 4)


def test_of_several_splits_one_is_to_be_chosen():
    splits = DatasetDict({"train": Dataset.from_list([{"text": "a"}])})
    with pytest.raises(ValueError, match=r"expected one dataset, got a mapping of \['train'\]; choose one"):
        document_texts(splits)


@pytest.mark.parametrize("row", [{"prompt": "a", "completion": COMPLETION}, {"prompt": None, "completion": "b"}])
def test_half_a_chat_is_refused(row):
    with pytest.raises(ValueError, match="row 0: expected prompt and completion as two texts or two lists"):
        document_texts(Dataset.from_list([row]))


def test_a_completion_has_no_speakers():
    dataset = Dataset.from_list([ROWS["prompt and completion"][0]])
    with pytest.raises(
        ValueError, match="expected dialogs for learn_from='user', got plain text in 'prompt' and 'comp"
    ):
        pack(dataset, tiny_tokenizer(), 4, learn_from="user")


def test_a_stream_is_packed_as_it_comes():
    tokenizer, rows = tiny_tokenizer(), [{"text": f"{number} {SENTENCES[number % 3]}"} for number in range(40)]
    stream = Dataset.from_list(rows).to_iterable_dataset()
    whole = pack(Dataset.from_list(rows), tokenizer, 8)
    blocks = pack(stream, tokenizer, 8)
    assert isinstance(blocks, IterableDataset) and list(blocks) == list(whole)
    first = pack(stream, tokenizer, 8, max_blocks=5)
    assert isinstance(first, Dataset) and first["input_ids"][:] == whole["input_ids"][:5]
    with pytest.raises(ValueError, match="at least one block of 4000 tokens, got less in the stream"):
        pack(stream, tokenizer, 4000, max_blocks=1)


def test_a_stream_of_a_file_has_its_columns_told_by_its_first_row(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps({"messages": CHATS["one turn"]}) + "\n")
    stream = load_dataset("json", data_files=str(tmp_path / "a.jsonl.gz"), split="train", streaming=True)
    assert document_texts(stream) == document_texts(load_texts(str(tmp_path / "a.jsonl.gz"))) == [SAID]


def test_a_text_is_cut_after_a_token():
    tokenizer, rows = tiny_tokenizer(), Dataset.from_dict({"text": SENTENCES})
    whole, cut = document_texts(rows), document_texts(rows, tokenizer=tokenizer, max_tokens=5)
    assert all(text.startswith(part) and part != text for text, part in zip(whole, cut, strict=True))
    assert [tokenizer(part)["input_ids"] for part in cut] == [tokenizer(text)["input_ids"][:5] for text in whole]
    assert document_texts(rows, tokenizer=tokenizer, max_tokens=10_000) == whole
    with pytest.raises(ValueError, match="expected a token to be kept of each document, got 0 as the most"):
        document_texts(rows, tokenizer=tokenizer, max_tokens=0)


def test_what_was_recognised_is_told_with_what_is_learned_in_brackets(caplog):
    pack(Dataset.from_list([{"messages": CHATS["one turn"]}]), tiny_tokenizer(), 4, learn_from="assistant")
    assert "Documents of messages, written as lines of `role: words`, learned from assistant." in caplog.text
    assert repr("user: How are you today?\nassistant:[ I am well.\n<|endoftext|>]") in caplog.text
    caplog.clear()
    pack(Dataset.from_list([{"text": SENTENCES[0]}]), tiny_tokenizer(), 4)
    assert not caplog.text, "plain text needs no word"


def test_a_tokenizer_that_knows_no_token_is_refused():
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token=EOS)
    with pytest.raises(ValueError, match=r"expected a tokenizer that knows tokens, got .* of 1 entries"):
        pack(Dataset.from_dict({"text": SENTENCES}), empty, 4)
