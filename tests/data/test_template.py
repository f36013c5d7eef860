"""Chats in the words of the tokenizer's template: their labels are those of TRL's `assistant_only_loss`."""

import pytest
from datasets import Dataset
from templates import ANSWERED, ASKED, CHATS, TEMPLATES, templated_tokenizer
from tiny import BOS, EOS, SENTENCES, encode, tiny_gpt2
from trl import SFTConfig, SFTTrainer

from ewc_hf.data import IGNORED, document_texts, pack
from ewc_hf.data.chat import chat_of
from ewc_hf.data.documents import encode as encode_document

pytestmark = [
    pytest.mark.usefixtures("datasets_cache"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),  # TRL's own default
]

MARKED = templated_tokenizer(TEMPLATES["headers"], marked=True)


def whole(chat, tokenizer, learn_from=None):
    return encode_document(chat_of(chat), tokenizer, learn_from)


def labels_of_trl(messages, tokenizer, folder, **how):
    args = SFTConfig(str(folder), assistant_only_loss=True, report_to="none", use_cpu=True, **how)
    dataset = Dataset.from_list([{"messages": messages}])
    row = SFTTrainer(tiny_gpt2(200), args, train_dataset=dataset, processing_class=tokenizer).train_dataset[0]
    return row["input_ids"], row["labels"]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS.keys())
def test_labels_are_those_of_trl_with_marks_and_without(tmp_path, template, messages):
    ids, labels = labels_of_trl(messages, templated_tokenizer(template, marked=True), tmp_path, max_length=None)
    assert IGNORED in labels and set(labels) != {IGNORED}
    for marked in (True, False):
        assert whole(messages, templated_tokenizer(template, marked), "assistant") == (ids, labels)


def test_words_in_parts_are_written_as_one_text():
    """A template that knows no parts would write the list."""
    parts = [{"type": "text", "text": "I am"}, {"type": "text", "text": " well."}]
    assert whole([ASKED, {**ANSWERED, "content": parts}], MARKED, "assistant") == whole(
        [ASKED, ANSWERED], MARKED, "assistant"
    )


def test_a_truncated_chat_has_the_labels_of_trl(tmp_path):
    length = len(whole(CHATS["many turns"], MARKED)[0]) - 10
    ids, labels = labels_of_trl(CHATS["many turns"], MARKED, tmp_path, max_length=length)
    assert len(ids) == length and labels[-1] != IGNORED, "it ends within an answer"
    dataset = Dataset.from_list([{"messages": CHATS["many turns"]}])
    (block, *_) = pack(dataset, MARKED, length, learn_from="assistant")
    assert block == {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("marked", [True, False])
def test_others_words_are_learned_by_what_the_text_grows_by(marked):
    tokenizer = templated_tokenizer(TEMPLATES["headers"], marked)
    ids, labels = whole(CHATS["many turns"], tokenizer, "user")
    learned = tokenizer.decode([token for token in labels if token != IGNORED])
    assert learned == "<|user|>\nHow are you today?<|end|>\n<|user|>\nAnd the ships?<|end|>\n"
    everything, all_labels = whole(CHATS["many turns"], tokenizer)
    assert everything == ids == all_labels


def test_nothing_follows_what_a_template_ended():
    text = MARKED.apply_chat_template(CHATS["one turn"], tokenize=False)
    assert not text.startswith(BOS)
    dataset = Dataset.from_list([{"messages": CHATS["one turn"]}] * 2)
    assert document_texts(dataset, tokenizer=MARKED) == [text] * 2
    tokens = encode(MARKED, text) * 2
    (block,) = pack(dataset, MARKED, len(tokens))
    assert block["input_ids"] == tokens


def test_the_token_that_perplexity_puts_before_each_text_is_not_in_it():
    tokenizer = templated_tokenizer(TEMPLATES["a beginning, tools and two line ends"], marked=False)
    text = tokenizer.apply_chat_template(CHATS["one turn"], tokenize=False)
    dataset = Dataset.from_list([{"messages": CHATS["one turn"]}])
    assert [BOS + document for document in document_texts(dataset, tokenizer=tokenizer)] == [text]
    assert whole(CHATS["one turn"], tokenizer)[0] == encode(tokenizer, text)


def test_a_template_that_rewrites_what_was_said_is_refused_where_it_has_no_marks():
    """Some leave the reasoning of earlier answers out."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last else '...' }}\n{% endfor %}"
    tokenizer = templated_tokenizer(template, marked=False)
    assert whole([ASKED, ANSWERED], tokenizer)[0]
    with pytest.raises(ValueError, match=r"row 0: expected a chat template that writes each message in one way"):
        pack(Dataset.from_list([{"messages": CHATS["many turns"]}]), tokenizer, 8, learn_from="assistant")


def test_a_chat_that_the_template_refuses_is_told_with_its_row_and_roles():
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system!') }}{% endif %}{% endfor %}"
    )
    tokenizer = templated_tokenizer(template + "{{ messages[0].content }}", marked=False)
    dataset = Dataset.from_list([{"messages": chat} for chat in (CHATS["one turn"], CHATS["a system turn"])])
    with pytest.raises(ValueError, match=r"row 1: .*No system! for messages of system, user, assistant; filter"):
        pack(dataset, tokenizer, 8)


def test_speakers_of_any_name_are_lines():
    turns = [{"speaker": "ann", "text": SENTENCES[1]}]
    assert document_texts(Dataset.from_list([{"turns": turns}]), tokenizer=MARKED) == [f"ann: {SENTENCES[1]}\n"]
    assert MARKED.decode(whole(turns, MARKED)[0]) == f"ann: {SENTENCES[1]}\n{EOS}"
