"""Importances of the classes of transformers against each class's own loss, whatever the padding and the batch size.

The classes are read from the library, every so many of each kind in alphabetical order.
"""

import inspect

import pytest
import torch
from library_models import CLASSES, EOS, VOCABULARY, NotSmallError, class_names, small_model

from ewc_hf import estimate_importance
from ewc_hf.data import IGNORED

EVERY = {"causal": 11, "seq2seq": 5, "masked": 9, "tokens": 12, "sequence": 13, "choice": 12, "question": 14}
COMPARED_AT_LEAST = {"causal": 12, "seq2seq": 3, "masked": 3, "tokens": 5, "sequence": 5, "choice": 2}
LENGTHS = (6, 9, 4)
PADDED = 11


def tokens(length, generator):
    return torch.randint(3, VOCABULARY, (length,), generator=generator)


def padded(values, side):
    padding = torch.zeros(PADDED - len(values), dtype=torch.long)
    return torch.cat([values, padding] if side == "right" else [padding, values])


def rows(kind, padding):
    """Three examples of several lengths; padded in the data, also where the labels are, or not."""
    generator, examples = torch.Generator().manual_seed(3), []
    for length in LENGTHS:
        if kind == "choice":
            choices = torch.stack([tokens(6, generator), tokens(6, generator)])
            examples.append({"input_ids": choices, "labels": torch.tensor(length % 2)})
            continue
        ids = torch.cat([tokens(length - 1, generator), torch.tensor([EOS])])
        example = {"input_ids": ids}
        if padding is not None:
            example = {"input_ids": padded(ids, padding), "attention_mask": padded(torch.ones_like(ids), padding)}
        parallel = PADDED if padding is not None else length
        if kind == "seq2seq":  # shorter than the input, or exactly as long, as an accident would have it
            example["labels"] = tokens(parallel if padding is not None else length - 2, generator)
        elif kind == "sequence":
            example["labels"] = torch.tensor(length % CLASSES)
        elif kind == "tokens":
            example["labels"] = torch.randint(0, CLASSES, (parallel,), generator=generator)
        else:
            example["labels"] = tokens(parallel, generator)
        examples.append(example)
    return examples


def predicts_next(model, example):
    """Only a loss that shifts labels leaves out the one of the first token."""
    only_the_first = torch.full_like(example["labels"], IGNORED)[None]
    only_the_first[0, 0] = example["labels"][0]
    with torch.no_grad():
        loss = model(example["input_ids"][None], labels=only_the_first).loss
    return not bool(loss > 0)


def own_loss_fisher(model, kind, examples):
    """The gradient of the model's own loss, the mean over its label tokens, one example at a time."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums, num_tokens = {name: torch.zeros_like(p) for name, p in parameters.items()}, 0
    shifts = kind in ("causal", "masked", "tokens") and predicts_next(model, examples[0])
    for example in examples:
        inputs = {key: value[None] for key, value in example.items()}
        labels = inputs.pop("labels").clone()
        if kind in ("causal", "masked", "tokens") and "attention_mask" in inputs:
            padding = inputs["attention_mask"] == 0
            labels[padding] = IGNORED
            if shifts:
                labels[:, 1:][padding[:, :-1]] = IGNORED
        count = int((labels[:, 1:] != IGNORED).sum()) if shifts else int((labels != IGNORED).sum())
        loss = model(**inputs, labels=labels).loss * count
        for name, gradient in zip(
            parameters, torch.autograd.grad(loss, [*parameters.values()], allow_unused=True), strict=True
        ):
            sums[name] += 0 if gradient is None else gradient.square()
        num_tokens += count
    return {name: total / num_tokens for name, total in sums.items()}, num_tokens


def difference(got, expected):
    """The largest relative to the largest importance."""
    scale = max(omega.abs().max() for omega in expected.values() if omega.numel())
    return max(float((got[name] - omega).abs().max() / scale) for name, omega in expected.items() if omega.numel())


def outcome(kind, model, padding, labels):
    """None where all is right, the reason where the class is refused."""
    examples = rows(kind, padding)
    if labels == "of the text":
        examples = [{**example, "labels": example["input_ids"]} for example in examples]
    expected, num_tokens = own_loss_fisher(model, kind, examples)
    for batch_size in (1, 3):
        given = [{k: v for k, v in row.items() if k != "labels" or labels == "given"} for row in examples]
        try:
            got = estimate_importance(model, given, batch_size=batch_size, progress=False)
        except ValueError as error:
            return str(error)
        assert got.metadata["num_tokens"] == num_tokens, (padding, batch_size)
        assert difference(got.importance, expected) < 2e-3, (padding, batch_size)
    return None


REASONS = {
    "no mask": "takes no attention mask",
    "another loss": "whose own loss is the mean negative log-likelihood",
    "labels at the same position": "key 'labels'",
}


@pytest.mark.parametrize("kind", COMPARED_AT_LEAST)
def test_importances_follow_the_own_loss(kind):
    """Or the class is refused for one of three reasons, each true of it."""
    paddings = [None] if kind == "choice" else [None, "right", "left"]
    cases = [(padding, "given") for padding in paddings]
    compared = []
    for name in class_names(kind)[:: EVERY[kind]]:
        try:
            model = small_model(name)
        except NotSmallError:
            continue
        takes_mask = "attention_mask" in inspect.signature(model.forward).parameters
        shifts = kind == "causal" and predicts_next(model, rows(kind, None)[0])
        refused = {}
        for padding, labels in [*cases, *([(None, "of the text")] if kind == "causal" else [])]:
            try:
                refused[padding, labels] = outcome(kind, model, padding, labels)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
        for (padding, labels), message in refused.items():
            if padding is not None and not takes_mask:
                assert REASONS["no mask"] in message, name
            elif labels == "of the text" and not shifts:
                assert REASONS["labels at the same position"] in message, name
            else:
                assert message is None or REASONS["another loss"] in message, f"{name}: {message}"
        compared += [name] if refused[None, "given"] is None else []
    assert len(compared) >= COMPARED_AT_LEAST[kind], compared


def test_answers_of_two_positions_are_refused():
    example = {"input_ids": [3, 4, 5], "start_positions": 1, "end_positions": 2}
    refused = 0
    for name in class_names("question")[:: EVERY["question"]]:
        try:
            model = small_model(name)
        except NotSmallError:
            continue
        with pytest.raises(ValueError, match="whose answers are two positions"):
            estimate_importance(model, [example], progress=False)
        refused += 1
    assert refused >= 4
