"""Every byte of the scored text is counted, whatever white space the tokenizer leaves out of its offsets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_texts import measure
from tiny import BOS, EOS, tiny_gpt2, tiny_tokenizer
from tokenizers import processors

from ewc_hf.evaluation.documents import read_document


def trimming_tokenizer(eos_token=EOS, add_prefix_space=False):
    """Its offsets leave white space out, as RoBERTa's do."""
    tokenizer = tiny_tokenizer(eos_token)
    ends = ("<|endoftext|>", 0), (BOS, 1)
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(*ends, True, add_prefix_space)
    return tokenizer


@pytest.mark.parametrize("add_prefix_space", [False, True])
@pytest.mark.parametrize("text", [" = Title = \n", " ", "\n", "  \u00e9  zq  ", "\u00e9"])
def test_a_whole_document_has_all_its_bytes(text, add_prefix_space):
    result = measure(tiny_gpt2(), trimming_tokenizer(add_prefix_space=add_prefix_space), [text])
    assert [score.num_bytes for score in result.documents] == [len(text.encode())]


@pytest.mark.parametrize(
    ("text", "scored"),
    [("z q", 2), ("z  ", 2), (" z", 1), ("\u00e9", 2), ("z", 0)],
    ids=["space before it", "spaces at the end", "space not scored", "half a character", "nothing scored"],
)
def test_where_the_first_token_is_not_scored_its_bytes_are_not_counted(text, scored):
    tokenizer = trimming_tokenizer(eos_token=None)
    assert len(read_document(tokenizer, text, None).scored_text.encode()) == scored


@given(text=st.text("zq \n", min_size=1, max_size=8), kept=st.integers(1, 8), trims=st.booleans())
def test_a_document_that_is_cut_has_the_bytes_of_its_tokens(text, kept, trims):
    tokenizer = TRIMMING if trims else PLAIN
    document = read_document(tokenizer, text, kept)
    tokens = tokenizer.convert_ids_to_tokens(document.tokens[1:])
    assert len(document.scored_text.encode()) == sum(map(len, tokens)), "each letter of these tokens is a byte"


TRIMMING, PLAIN = trimming_tokenizer(), tiny_tokenizer()
