"""A model's context, against what the model itself can read; longer sequences are refused before any work."""

import pytest
import torch
import transformers as hf
from conftest import gpt2, llama
from small_runs import arguments
from torch import nn
from transformers import default_data_collator

from ewc_hf import EWCTrainer, estimate_importance
from ewc_hf.data import context_length

POSITIONS = 12
_SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": POSITIONS, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
_GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
_BART = {
    "vocab_size": 40, "d_model": 16, "max_position_embeddings": POSITIONS, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "pad_token_id": 1,
}  # fmt: skip
CONFIGS = {
    "GPT-2": hf.GPT2Config(n_positions=POSITIONS, **_GPT2),
    "GPT-J, a table of rotations": hf.GPTJConfig(n_positions=POSITIONS, rotary_dim=4, **_GPT2),
    "CTRL, a table of sines": hf.CTRLConfig(n_positions=POSITIONS, dff=24, **_GPT2),
    "OPT, two rows before the first": hf.OPTConfig(ffn_dim=24, word_embed_proj_dim=16, **_SIZES),
    "BERT": hf.BertConfig(is_decoder=True, **_SIZES),
    "RoBERTa, after the padding": hf.RobertaConfig(is_decoder=True, **_SIZES),
    "RoBERTa, padding at 3": hf.RobertaConfig(is_decoder=True, **{**_SIZES, "pad_token_id": 3}),
    "Bart": hf.BartConfig(is_decoder=True, is_encoder_decoder=False, **_BART),
    "Llama, rotary": hf.LlamaConfig(**_SIZES),
    "GPT-NeoX, rotary": hf.GPTNeoXConfig(**_SIZES),
    "Bloom, ALiBi": hf.BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2),
    "Mamba": hf.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, state_size=4),
    "XGLM, sines as they are needed": hf.XGLMConfig(d_model=16, num_layers=1, attention_heads=2, ffn_dim=24, **_SIZES),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_it_is_the_length_beyond_which_the_model_fails(config):
    model = hf.AutoModelForCausalLM.from_config(config).eval()

    def reads(length):
        try:
            model(torch.full((1, length), 5))
        except (IndexError, RuntimeError, ValueError):
            return False
        return True

    limit = next((length - 1 for length in range(2, 41) if not reads(length)), None)
    assert limit is None or limit >= 8, "else the model cannot be read at all"
    assert context_length(model) == limit
    assert context_length(nn.Sequential(model)) == limit, "wrapped too"


def test_what_is_no_model_of_transformers_has_none():
    assert context_length(nn.Sequential(nn.Embedding(12, 4))) is None


def blocks(length, number=4):
    return [{"input_ids": [5] * length, "labels": [5] * length} for _ in range(number)]


TOO_LONG = "expected sequences of at most 32 tokens, the model's context, got 33; cut the text into blocks of 32"


@pytest.mark.parametrize("collator", [None, default_data_collator], ids=["our collator", "another"])
def test_estimating_refuses_longer_blocks_before_the_model_reads_any(collator):
    model = gpt2()
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    examples = blocks(33) if collator else [*blocks(9, 20), *blocks(33, 1)]
    with pytest.raises(ValueError, match=TOO_LONG):
        estimate_importance(model, examples, batch_size=2, data_collator=collator, progress=False)
    assert seen == []
    estimate_importance(model, blocks(32), batch_size=2, data_collator=collator, progress=False)


@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_a_trainer_refuses_longer_blocks_before_the_model_reads_any(tmp_path, what):
    model = gpt2()
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    trainer = EWCTrainer(model, arguments(tmp_path), train_dataset=blocks(33), eval_dataset=blocks(33))
    with pytest.raises(ValueError, match=TOO_LONG):
        getattr(trainer, what)()
    assert seen == []


def test_a_later_batch_is_refused_too_and_one_as_long_as_the_context_is_not(tmp_path):
    trainer = EWCTrainer(
        gpt2(),
        arguments(tmp_path, max_steps=1, per_device_eval_batch_size=4),
        train_dataset=blocks(32),
        eval_dataset=[*blocks(32), *blocks(33)],
    )
    trainer.train()
    with pytest.raises(ValueError, match=TOO_LONG):
        trainer.evaluate()


def test_several_sequences_in_a_row_with_positions_of_their_own_are_none_too_long(tmp_path):
    row = {"input_ids": [5] * 40, "labels": [5] * 40, "position_ids": [*range(20)] * 2}
    EWCTrainer(gpt2(), arguments(tmp_path, max_steps=1), train_dataset=[row] * 2).train()


def test_rotary_models_learn_blocks_beyond_what_they_were_trained_for(tmp_path):
    model = llama()
    assert model.config.max_position_embeddings == 32
    EWCTrainer(model, arguments(tmp_path, max_steps=1), train_dataset=blocks(40)).train()
    assert estimate_importance(model, blocks(40), batch_size=2, progress=False).metadata["num_tokens"] == 4 * 39
