"""The batched pass against the oracle on many architectures, and its retreat to one example at a time."""

import oracles
import pytest
import torch
from architectures import CAUSAL, LENGTH, MLP, VOCAB, ConvNet, causal_model, double_stays_double, perturbed, t5
from ewc_hf.calls import GradientPath
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification

from ewc_hf import estimate_importance

BY_EXAMPLE = {"Mixtral": "experts", "OPT": "embed_positions", "Mamba": "mixer"}
"""Architectures with a parameter whose module is given more than one tensor, or flattened tokens."""


def ids(seed, length=LENGTH):
    return torch.randint(2, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def packed():
    return [{"input_ids": ids(seed)} for seed in range(5)]


def padded():
    lengths = (9, 5, 7, 2, 6)
    return [
        {"input_ids": ids(seed, n) + [0] * (LENGTH - n), "attention_mask": [1] * n + [0] * (LENGTH - n)}
        for seed, n in enumerate(lengths)
    ]


def estimate(model, dataset, **options):
    return estimate_importance(model, dataset, **{"progress": False, "batch_size": 3, **options})


def assert_same(got, expected, relative=1e-10):
    """Relative to each tensor's largest value; a key bias, whose true gradient is zero, holds round-off only."""
    assert got.keys() == expected.keys()
    round_off = 1e-14 * max(value.max() for value in expected.values())
    for name, value in expected.items():
        assert (got[name] - value).abs().max() <= relative * value.max() + round_off, name


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("examples", [packed, padded])
@pytest.mark.parametrize("name", CAUSAL)
def test_decoders(name, examples, tied):
    model, examples = causal_model(name, tied), examples()
    with double_stays_double():
        got = estimate(model, examples)
        assert_same(got.importance, oracles.fisher(model, examples))
    assert got.metadata["paths"].keys() == got.importance.keys()
    assert (GradientPath.EXAMPLE.value in got.metadata["paths"].values()) is (name in BY_EXAMPLE)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_encoder_decoders(tied):
    """Their labels are not shifted, and of another length than the input."""
    model = t5(tied)
    examples = [{"input_ids": ids(seed, n), "labels": ids(seed + 9, m)} for seed, (n, m) in enumerate(SIZES)]

    def logits_of(twin, example):
        inputs, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        return twin(input_ids=inputs, labels=labels).logits[0], example["labels"]

    with double_stays_double():
        got = estimate(model, examples)
        assert_same(got.importance, oracles.fisher_of(model, examples, sum(m for _, m in SIZES), logits_of))
    assert got.metadata["num_tokens"] == sum(m for _, m in SIZES)


SIZES = ((9, 4), (5, 6), (7, 2), (3, 5))


@pytest.mark.parametrize("name", ["MLP", "ConvNet"])
def test_classifiers_of_images(name):
    """The paper's networks: inputs called neither `input_ids` nor `labels`, one label an example."""
    model, shape = {"MLP": (perturbed(MLP()), (3, 4)), "ConvNet": (perturbed(ConvNet()), (1, 12, 12))}[name]
    draws = torch.Generator().manual_seed(2)
    images = torch.randn(7, *shape, generator=draws, dtype=torch.float64)
    examples = [{"images": image, "label": number % 5} for number, image in enumerate(images)]

    def logits_of(twin, example):
        return twin(example["images"][None]), [example["label"]]

    got = estimate(model, examples)
    assert_same(got.importance, oracles.fisher_of(model, examples, len(examples), logits_of))
    convolutions = GradientPath.MODULE if name == "ConvNet" else GradientPath.CLOSED_FORM
    assert set(got.metadata["paths"].values()) == {convolutions.value, GradientPath.CLOSED_FORM.value}


@pytest.mark.parametrize("name", ["sequence", "token", "masked"])
def test_heads_that_do_not_shift(name):
    """One label an example, and labels at their own position."""
    config = BertConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    heads = {
        "sequence": BertForSequenceClassification,
        "token": BertForTokenClassification,
        "masked": BertForMaskedLM,
    }
    torch.manual_seed(0)
    model = perturbed(heads[name](config))
    labels = {"sequence": lambda seed: seed % 3, "token": lambda seed: [seed % 3] * LENGTH, "masked": ids}[name]
    examples = [{**example, "labels": labels(seed)} for seed, example in enumerate(packed())]

    def logits_of(twin, example):
        logits = twin(input_ids=torch.tensor([example["input_ids"]])).logits
        return (logits, [example["labels"]]) if name == "sequence" else (logits[0], example["labels"])

    got = estimate(model, examples)
    num_labels = len(examples) * (1 if name == "sequence" else LENGTH)
    assert_same(got.importance, oracles.fisher_of(model, examples, num_labels, logits_of))
    assert got.metadata["num_tokens"] == num_labels


class Strange(nn.Module):
    """A language model with one part that hooks on modules see wrongly or not at all."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.part = part
        self.table = nn.Embedding(VOCAB, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, VOCAB, bias=False)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, input_ids):
        x = self.table(input_ids)
        even_B11 = (input_ids % 2 == 0).all(1)[:, None, None]
        match self.part:
            case "bare parameter":
                x = x * self.scale
            case "used without its module":
                x = self.mix(x) @ self.mix.weight.T
            case "flattened":
                x = self.mix(x.flatten(0, 1)).view(x.shape)
            case "time first":
                x = self.mix(x.transpose(0, 1)).transpose(0, 1)
            case "called twice":
                x = self.mix(torch.tanh(self.mix(x)))
            case "changed in place":
                x = torch.tanh(self.mix(x).mul_(2).add_(x))
            case "nested":
                x = self.mix(torch.tanh(self.head(x))[..., :6])
            case "without gradient":
                with torch.no_grad():
                    y = self.mix(x)
                x = self.mix(x) + y
            case "checkpointed":
                x = checkpoint(lambda x: torch.tanh(self.mix(x)), x, use_reentrant=False)
            case "across examples":
                x = self.mix(x) + self.mix(x).mean(0, keepdim=True)
            case "late":
                x = torch.where(even_B11, self.mix(x), x)
            case "late and without its module":
                x = torch.where(even_B11, x @ self.mix.weight.T, x)
        return self.head(x)


PARTS = {
    "bare parameter": GradientPath.EXAMPLE,
    "used without its module": GradientPath.EXAMPLE,
    "flattened": GradientPath.EXAMPLE,
    "time first": GradientPath.EXAMPLE,
    "called twice": GradientPath.CLOSED_FORM,
    "changed in place": GradientPath.EXAMPLE,
    "nested": GradientPath.CLOSED_FORM,
    "without gradient": GradientPath.CLOSED_FORM,
    "checkpointed": GradientPath.CLOSED_FORM,
    "across examples": GradientPath.EXAMPLE,
    "late": GradientPath.EXAMPLE,
    "late and without its module": GradientPath.EXAMPLE,
}
"""Strange parts, and the path on which they are exact. The late ones act in the last batch only."""


@pytest.mark.parametrize("length", [2, 3, LENGTH])
@pytest.mark.parametrize("part", PARTS)
def test_strange_models(part, length):
    """Sequences as long as the batch, or as the two examples compared, invite a mix-up of the two dimensions."""
    model = perturbed(Strange(part))
    examples = [{"input_ids": ids(seed, length)} for seed in range(9)]
    examples[7]["input_ids"] = [2 * token % VOCAB for token in ids(7, length)]
    got = estimate(model, iter(examples))

    def logits_of(twin, example):
        return twin(torch.tensor([example["input_ids"]]))[0, :-1], example["input_ids"][1:]

    assert_same(got.importance, oracles.fisher_of(model, examples, 9 * (length - 1), logits_of))
    assert (GradientPath.EXAMPLE.value in got.metadata["paths"].values()) is (PARTS[part] is GradientPath.EXAMPLE)
