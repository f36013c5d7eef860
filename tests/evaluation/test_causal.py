"""Models whose perplexity cannot be measured are refused, and those that can have the window that they can read."""

import pytest
import torch
import transformers as hf
from architectures import CAUSAL, causal_model
from measured_texts import letters, measure, reference
from tiny import VOCABULARY, encode, tiny_gpt2, tiny_tokenizer

from ewc_hf import evaluate_perplexity
from ewc_hf.evaluation.causal import context_of, require_causal

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
ENCODER_DECODER = {
    "vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 20,
}  # fmt: skip
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
DECODER = {**SIZES, "is_decoder": True}


def build(name, config, sizes, **more):
    torch.manual_seed(0)
    return getattr(hf, name)(config(**{**sizes, **more}))


@pytest.mark.parametrize(
    ("name", "config", "sizes", "got"),
    [
        ("BertForMaskedLM", hf.BertConfig, SIZES, "a masked language model"),
        ("BertForMaskedLM", hf.BertConfig, DECODER, "a masked language model"),
        ("RobertaForMaskedLM", hf.RobertaConfig, SIZES, "a masked language model"),
        ("BertLMHeadModel", hf.BertConfig, SIZES, "whose logits depend on later tokens"),
        ("RobertaForCausalLM", hf.RobertaConfig, SIZES, "whose logits depend on later tokens"),
        (
            "XLNetLMHeadModel",
            hf.XLNetConfig,
            {"vocab_size": VOCABULARY, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16},
            "whose logits depend on later tokens",
        ),
        ("BartForConditionalGeneration", hf.BartConfig, ENCODER_DECODER, "an encoder-decoder"),
        (
            "T5ForConditionalGeneration",
            hf.T5Config,
            {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
            "an encoder-decoder",
        ),
        ("GPT2Model", hf.GPT2Config, GPT2, "got none from GPT2Model"),
        ("GPT2ForSequenceClassification", hf.GPT2Config, GPT2, r"got logits of shape \(1, 2\) for 8 tokens from"),
        ("GPT2ForTokenClassification", hf.GPT2Config, GPT2, "with 2 outputs a position"),
    ],
)
def test_other_models_are_refused_by_what_they_are(name, config, sizes, got):
    with pytest.raises(ValueError, match=f"expected a causal language model, .*{got}.*; load "):
        measure(build(name, config, sizes), tiny_tokenizer(), ["zq xj jx qz"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CAUSAL)
def test_decoders_are_not(name, dtype):
    model = causal_model(name).eval().to(dtype)
    rounds_logits = name == "Mamba" and dtype is torch.float64
    with torch.no_grad():
        assert require_causal(model, [1, 5, 7, 30], 9) is (torch.float32 if rounds_logits else dtype)


def test_text_of_one_letter_tells_too():
    with pytest.raises(ValueError, match="whose logits depend on later tokens"):
        measure(build("BertLMHeadModel", hf.BertConfig, SIZES), tiny_tokenizer(eos_token=None), ["zzzz"])


@pytest.mark.parametrize("padding", [1, 3])
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("RobertaForCausalLM", hf.RobertaConfig),
        ("XLMRobertaForCausalLM", hf.XLMRobertaConfig),
        ("XLMRobertaXLForCausalLM", hf.XLMRobertaXLConfig),
        ("CamembertForCausalLM", hf.CamembertConfig),
        ("RobertaPreLayerNormForCausalLM", hf.RobertaPreLayerNormConfig),
        ("Data2VecTextForCausalLM", hf.Data2VecTextConfig),
    ],
)
def test_positions_that_begin_after_a_row_for_padding_leave_a_shorter_window(name, config, padding):
    model, tokenizer = build(name, config, DECODER, pad_token_id=padding).double().eval(), tiny_tokenizer()
    window, text = 20 - padding - 1, letters(40)
    assert context_of(model) == window
    result = evaluate_perplexity(model, tokenizer, [text], progress=False)
    assert result == measure(model, tokenizer, [text], window=window)
    ((nats, count),) = reference(model, [0], [encode(tokenizer, text)], window, window // 2)
    assert (result.nll, result.num_tokens) == (pytest.approx(nats / count, rel=1e-9), count)
    with pytest.raises(ValueError, match=f"expected 2 <= window <= {window}, the model's context, got {window + 1}"):
        measure(model, tokenizer, [text], window=window + 1)


@pytest.mark.parametrize(("name", "config"), [("BertLMHeadModel", hf.BertConfig), ("OPTForCausalLM", hf.OPTConfig)])
def test_positions_that_begin_at_once_leave_the_whole_window(name, config):
    model = build(name, config, DECODER, ffn_dim=16, word_embed_proj_dim=16).eval()
    assert context_of(model) == 20
    assert measure(model, tiny_tokenizer(), [letters(40)], window=20).num_tokens == 40


def test_a_token_that_the_model_does_not_know_is_named_before_any_work():
    model, tokenizer = tiny_gpt2(), tiny_tokenizer()
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    tokenizer.add_tokens(["<new>"])
    message = (
        rf"expected 'input_ids' from 0 to {VOCABULARY - 1}, .* got \d+ to {VOCABULARY}; use the model's own tokenizer"
    )
    with pytest.raises(ValueError, match=message):
        measure(model, tokenizer, ["zq", "zq <new>"])
    assert not calls
    tokenizer = tiny_tokenizer(eos_token=None)
    tokenizer.add_special_tokens({"bos_token": "<start>"})
    with pytest.raises(ValueError, match=message):
        measure(model, tokenizer, ["zq"])
    assert not calls
