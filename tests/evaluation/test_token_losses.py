"""The loss of each token, against the perplexity of the whole; and the tokens that are predicted worse."""

import pytest
import torch
from tiny import BOS, EOS, SENTENCES, tiny_gpt2, tiny_tokenizer

from ewc_hf import evaluate_perplexity
from ewc_hf.evaluation import TokenLoss, most_risen, token_losses

TEXT = " ".join(SENTENCES)


@pytest.mark.parametrize(("eos_token", "bos_token"), [(EOS, None), (EOS, BOS), (None, None)])
def test_the_losses_sum_up_to_the_documents(eos_token, bos_token):
    """Without a token to begin with the first token has no loss."""
    model, tokenizer = tiny_gpt2(), tiny_tokenizer(eos_token, bos_token)
    losses = token_losses(model, tokenizer, TEXT, max_tokens=50)
    whole = evaluate_perplexity(model, tokenizer, [TEXT], max_document_tokens=50, progress=False)
    assert len(losses) == whole.num_tokens == (50 if eos_token else 49)
    assert sum(each.nll for each in losses) / len(losses) == pytest.approx(whole.nll, rel=1e-5)
    first = "" if eos_token else "Th"
    assert TEXT.startswith(first + "".join(each.text for each in losses))


def test_a_character_of_several_tokens_stands_with_the_first():
    text = "The star ✶ fell, señor."
    losses = token_losses(tiny_gpt2(), tiny_tokenizer(), text)
    assert "".join(each.text for each in losses) == text
    assert "✶" in [each.text.strip() for each in losses] and "" in [each.text for each in losses]


def test_a_model_that_diverged_is_told():
    model = tiny_gpt2()
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(
        ValueError, match="expected finite losses, got NaN or infinity from GPT2LMHeadModel; it has di"
    ):
        token_losses(model, tiny_tokenizer(), TEXT)


def test_the_worst_come_first_with_what_is_before_them():
    before = [TokenLoss("a", 1.0), TokenLoss("b", 2.0), TokenLoss("c", 3.0)]
    after = [TokenLoss("a", 2.0), TokenLoss("b", 1.0), TokenLoss("c", 9.0)]
    other = [TokenLoss("d", 0.0)], [TokenLoss("d", 3.0)]
    risen = most_risen([(before, after), other], number=10)
    assert [(each.context, each.text, each.before, each.after) for each in risen] == [
        ("ab", "c", 3.0, 9.0), ("", "d", 0.0, 3.0), ("", "a", 1.0, 2.0),
    ]  # fmt: skip
    assert most_risen([(before, after), other], number=1) == risen[:1]
