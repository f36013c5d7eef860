"""Rows of tiny models, and whether two sets of rows are the same bits."""

import torch
from tiny import tiny_gpt2, tiny_tokenizer

from ewc_hf.rehearsal import answer_rehearsal, generate_rehearsal

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|> {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chat_tokenizer(template=TEMPLATE):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def generated(model=None, tokenizer=None, **options):
    options = {"num_rows": 10, "num_tokens": 12, "top_k": 7, "batch_size": 4, "progress": False, **options}
    return generate_rehearsal(
        tiny_gpt2() if model is None else model, tiny_tokenizer() if tokenizer is None else tokenizer, **options
    )


def texts(*lengths):
    """Rows of old text."""
    draws = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(0, 300, (length,), generator=draws).tolist()} for length in lengths]


def answered(rows, model=None, **options):
    options = {"top_k": 7, "batch_size": 4, "progress": False, **options}
    return answer_rehearsal(tiny_gpt2() if model is None else model, rows, **options)


def bits(rehearsal):
    """All rows; of floating-point numbers, each value and its type."""
    return rehearsal.rows.with_format("arrow")[:].to_pydict(), rehearsal.rows.features
