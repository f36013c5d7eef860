"""Tokens that a model has no embedding of."""

import pytest
import torch
from architectures import MLP, t5
from conftest import VOCAB, gpt2

from ewc_hf.data.vocabulary import require_known_tokens

KNOWN = torch.tensor([[0, VOCAB - 1]])


@pytest.mark.parametrize("token", [VOCAB, -1])
@pytest.mark.parametrize(
    ("build", "key"), [(gpt2, "input_ids"), (t5, "input_ids"), (t5, "decoder_input_ids"), (t5, "labels")]
)
def test_unknown_tokens_are_refused(build, key, token):
    inputs = {"input_ids": KNOWN, key: torch.tensor([[1, token]])}
    with pytest.raises(ValueError, match=f"expected '{key}' from 0 to {VOCAB - 1}, .* got {min(token, 1)} to"):
        require_known_tokens(build(), inputs)


def test_known_tokens_pass():
    require_known_tokens(t5(), {"input_ids": KNOWN, "labels": torch.tensor([[3, -100]])})
    require_known_tokens(gpt2(), {"input_ids": KNOWN, "labels": torch.tensor([[VOCAB, 1]])})  # no embedding of those
    require_known_tokens(MLP(), {"input_ids": torch.tensor([[10**6]])})
