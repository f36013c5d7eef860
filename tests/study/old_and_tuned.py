"""A tiny model that learned books, and the same after it learned dialogs and forgot the books."""

import copy

import torch
from books_and_dialogs import BOOKS, DIALOGS
from tiny import encode, tiny_gpt2, tiny_tokenizer

from ewc_hf.study import TextNames, interpolate

BOOK_TEXTS = BOOKS[:3]
NAMES = TextNames(task="dialogs", retention="books")
DIALOG_TEXTS = ["\n".join(f"{turn['speaker']}: {turn['text']}" for turn in dialog) for dialog in DIALOGS[:2]]


def trained(model, texts, steps, learning_rate):
    """Deterministic: dropout is off, and every step sees all texts."""
    tokenizer = tiny_tokenizer()
    rows = [encode(tokenizer, text) for text in texts]
    ids = torch.tensor([row[start : start + 12] for row in rows for start in range(0, len(row) - 11, 6)])
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model


def old_and_tuned():
    old = trained(tiny_gpt2().eval(), BOOK_TEXTS, 30, 1e-2)
    return old, trained(copy.deepcopy(old), DIALOG_TEXTS, 15, 5e-3)


def save(model, folder, **options):
    """Write a model with its tokenizer; returns the folder."""
    model.save_pretrained(folder, **options)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_models(folder):
    """Write both, and the tuned one in bfloat16 besides; returns the folder."""
    old, tuned = old_and_tuned()
    save(old, folder / "old")
    save(tuned, folder / "tuned")
    save(tuned.bfloat16(), folder / "tuned_in_bfloat16")
    return folder


def slide(models, output, tuned="tuned", **options):
    """Interpolate between the models of a folder."""
    options = {"names": NAMES, "progress": False, **options}
    return interpolate(models / "old", models / tuned, BOOK_TEXTS, DIALOG_TEXTS, output, **options)


def files(folder):
    return {path.name for path in folder.iterdir()}
