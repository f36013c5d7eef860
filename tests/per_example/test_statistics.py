"""The batched pass against the oracle on many architectures, and its retreat to one example at a time."""

import oracles
import pytest
import torch
from architectures import CAUSAL, LENGTH, MLP, VOCAB, ConvNet, causal_model, double_stays_double, perturbed, t5
from assertions import assert_same
from strange_models import PARTS, Strange
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification

from ewc_hf import estimate_importance
from ewc_hf.per_example import GradientPath

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


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
@pytest.mark.parametrize("rows", [2, 3], ids=["while the paths are chosen", "later"])
def test_running_out_of_memory_is_no_matter_of_layers(error, rows):
    """One example at a time would be the cure of a batch size, and many times slower, after a mere warning."""
    model = causal_model("GPT-2")

    def run_out(module, args, kwargs):
        if len(kwargs["input_ids"]) >= rows:
            raise error

    model.register_forward_pre_hook(run_out, with_kwargs=True)
    with pytest.raises(type(error), match="memory"):
        estimate(model, packed())
