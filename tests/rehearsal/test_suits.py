"""What rehearsal rows cannot be made of, and whom they do not suit."""

import math

import pytest
import torch
from accelerate import ParallelismConfig
from rehearsed import answered, chat_tokenizer, generated, texts
from small_runs import arguments
from tiny import tiny_gpt2, tiny_tokenizer
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from ewc_hf import EWCTrainer

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 300}


def encoder_decoder():
    return T5ForConditionalGeneration(
        T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=300, decoder_start_token_id=0)
    )


def masked():
    return BertForMaskedLM(BertConfig(intermediate_size=16, max_position_embeddings=16, **SMALL))


KIND = "expected a causal language model that each process holds whole, got {}, which .* load it with `AutoModelFor"
OUT_OF_RANGE = r"expected batch_size >= 1 and top_k from 1 to 300, the model's tokens, got {}"
SILENT = "{% for message in messages %}{{ message.role }}: ...{% endfor %}"
UNBEGUN = "{% for message in messages %}{{ message.content }}{% endfor %}"
CANNOT_WRITE = {
    "no rows": ({"num_rows": 0}, "expected num_rows >= 1, got 0"),
    "no batch": ({"batch_size": 0}, OUT_OF_RANGE.format("0 and 7")),
    "temperature 0": ({"temperature": 0.0}, "expected a temperature above 0, got 0.0; 1 draws as the model was"),
    "endless temperature": ({"temperature": math.inf}, "expected a temperature above 0, got inf"),
    "no temperature": ({"temperature": math.nan}, "expected a temperature above 0, got nan"),
    "no tokens": ({"num_tokens": 1}, "expected num_tokens > 1, the tokens that each row begins with, got 1"),
    "no tokens of a chat": (
        {"num_tokens": 5, "chat": True, "tokenizer": chat_tokenizer()},
        r"expected num_tokens > \d+, the tokens that each row begins with, got 5",
    ),
    "past the context": ({"num_tokens": 17}, "expected sequences of at most 16 tokens, the model's context, got 17"),
    "no answers": ({"top_k": 0}, OUT_OF_RANGE.format("4 and 0")),
    "past the vocabulary": ({"top_k": 301}, OUT_OF_RANGE.format("4 and 301")),
    "no beginning": (
        {"tokenizer": tiny_tokenizer(eos_token=None)},
        "expected a tokenizer with a beginning- or end-of-text token to begin with, got one with neither; set",
    ),
    "an unknown beginning": (
        {"tokenizer": tiny_tokenizer(eos_token="<|added|>")},
        "expected 'input_ids' from 0 to 299, the rows of the model's embeddings, got 300 to 300",
    ),
    "no template": ({"chat": True}, "expected a tokenizer with a chat template for chat=True, got one without; leave"),
    "silent template": (
        {"chat": True, "tokenizer": chat_tokenizer(SILENT)},
        r"expected a chat template that writes a user's words after a beginning, got 'user: \.\.\.'; leave chat out",
    ),
    "template without a beginning": (
        {"chat": True, "tokenizer": chat_tokenizer(UNBEGUN)},
        "expected a chat template that writes a user's words after a beginning, got 'WORDS'; leave chat out",
    ),
    "an encoder-decoder": ({"model": encoder_decoder()}, KIND.format("T5ForConditionalGeneration")),
    "a masked model": ({"model": masked()}, KIND.format("BertForMaskedLM")),
}
NOT_ROWS = "expected rows with 'input_ids' of at least one token, got {} rows, not all of them so; tokenize"
CANNOT_ANSWER = {
    "no rows": ([], {}, NOT_ROWS.format(0)),
    "no tokens": ([*texts(5), {"input_ids": []}], {}, NOT_ROWS.format(2)),
    "text": ([{"text": "Hello"}], {}, NOT_ROWS.format(1)),
    "padding": (
        [{"input_ids": [1, 2, 0], "attention_mask": [1, 1, 0]}],
        {},
        "expected rows without padding, got an attention mask with 0; cut the padding off",
    ),
    "past the context": (texts(5, 17), {}, "expected sequences of at most 16 tokens, the model's context, got 17"),
    "an unknown token": (
        [{"input_ids": [1, 300]}], {}, "expected 'input_ids' from 0 to 299, the rows of the model's .* got 1 to 300",
    ),
    "no batch": (texts(5), {"batch_size": 0}, OUT_OF_RANGE.format("0 and 7")),
    "no answers": (texts(5), {"top_k": -1}, OUT_OF_RANGE.format("4 and -1")),
    "past the vocabulary": (texts(5), {"top_k": 301}, OUT_OF_RANGE.format("4 and 301")),
    "an encoder-decoder": (texts(5), {"model": encoder_decoder()}, KIND.format("T5ForConditionalGeneration")),
    "a masked model": (texts(5), {"model": masked()}, KIND.format("BertForMaskedLM")),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), CANNOT_WRITE.values(), ids=CANNOT_WRITE)
def test_rows_that_no_model_can_write_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        generated(resume_folder=tmp_path / "unfinished", **options)
    assert not (tmp_path / "unfinished").exists()


@pytest.mark.parametrize(("rows", "options", "message"), CANNOT_ANSWER.values(), ids=CANNOT_ANSWER)
def test_text_that_no_model_can_answer_is_refused(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        answered(rows, resume_folder=tmp_path / "unfinished", **options)
    assert not (tmp_path / "unfinished").exists()


def trainer_of(folder, rehearsal, model=None, kind=EWCTrainer, processing_class=None, **options):
    rows = [{"input_ids": torch.ones(9, dtype=torch.long), "labels": torch.ones(9, dtype=torch.long)}] * 4
    return kind(
        tiny_gpt2() if model is None else model,
        arguments(folder, **options),
        train_dataset=rows,
        rehearsal=rehearsal,
        processing_class=processing_class,
    )


def resized(vocab_size, says=None):
    model = tiny_gpt2()
    model.resize_token_embeddings(vocab_size)
    model.config.vocab_size = vocab_size if says is None else says
    return model


class SeveralDevices(EWCTrainer):
    """As the trainer is where one process sees several GPUs."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.args._n_gpu = 2


class TensorParallel(EWCTrainer):
    """As the trainer is where each matrix is spread over two devices."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.state.parallelism_config = ParallelismConfig(tp_size=2)


SPREAD = "expected each device to have rows of its own, .* launch a process a GPU"
UNSUITABLE = {
    "an encoder-decoder": (
        {"model": encoder_decoder()},
        "expected a causal language model to rehearse with, got T5ForConditionalGeneration; load it with",
    ),
    "a masked model": ({"model": masked()}, "expected a causal language model to rehearse with, got BertForMaskedLM"),
    "several devices": ({"kind": SeveralDevices}, SPREAD),
    "spread matrices": ({"kind": TensorParallel}, SPREAD),
    "another tokenizer": (
        {"processing_class": tiny_tokenizer(sentences=["a b"])},
        "expected the tokenizer that the rehearsal rows were made with, or one with tokens added to it, got another",
    ),
    "fewer tokens": (
        {"model": resized(299)},
        "expected rehearsal rows of the model's 299 tokens or fewer, got answers of a model with 300; generate rows",
    ),
    "fewer embeddings than it says": (
        {"model": resized(2, says=300)},
        "expected 'input_ids' from 0 to 1, the rows of the model's embeddings, got 0 to ",
    ),
    "kernels without logits": (
        {"use_liger_kernel": True},
        "expected use_liger_kernel=False beside `rehearsal`, got True, which computes the loss without the logits",
    ),
    "a shorter context": ({"model": tiny_gpt2(context=11)}, "at most 11 tokens, the model's context, got 12"),
}


@pytest.mark.parametrize(("options", "message"), UNSUITABLE.values(), ids=UNSUITABLE)
def test_whom_the_rows_do_not_suit_is_told_before_training(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, generated(), **options)


@pytest.mark.parametrize("processing_class", [None, tiny_tokenizer()], ids=["no tokenizer", "the same tokenizer"])
@pytest.mark.parametrize("make", [generated, lambda: answered(texts(5, 9))], ids=["generated", "answered"])
def test_rows_suit_the_model_that_answered(tmp_path, make, processing_class):
    trainer_of(tmp_path, make(), processing_class=processing_class)


@pytest.mark.parametrize("make", [generated, lambda: answered(texts(5, 9))], ids=["generated", "answered"])
def test_rows_suit_a_model_with_added_tokens(tmp_path, make):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|added|>"})
    tokenizer.add_tokens(["<|more|>"])
    trainer = trainer_of(tmp_path, make(), resized(302), processing_class=tokenizer, max_steps=2)
    trainer.train()
    assert all(math.isfinite(entry["rehearsal_kl"]) for entry in trainer.state.log_history if "loss" in entry)
