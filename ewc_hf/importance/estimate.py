"""`estimate_importance`: one pass over a sample of text, ending in a `Consolidation`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import ExplicitEnum

from ..batching import Batch, Collator, Example, batches, sample_examples
from ..consolidation import NATS_PER_TOKEN, Consolidation
from ..gradients import Statistic, add_gradient_statistic_reference, zeros_like_parameters
from ..labels import IGNORED, LabelSource
from ..modes import evaluating, in_full_precision
from ..params import trainable_parameters, unwrap
from . import fisher, mas


class ImportanceMethod(ExplicitEnum):
    """How importance is estimated from a sample of the text to remember."""

    FISHER = "fisher"
    """Diagonal Fisher information; its unit is nats per token."""

    MAS = "mas"
    """Memory Aware Synapses."""


def estimate_importance(
    model: nn.Module,
    dataset: Dataset | Iterable[Example],
    method: ImportanceMethod | str = ImportanceMethod.FISHER,
    labels: LabelSource | str = LabelSource.GROUND_TRUTH,
    mas_output: mas.MASOutput | str = mas.MASOutput.PROBABILITIES,
    num_examples: int = 512,
    batch_size: int = 8,
    data_collator: Collator | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Consolidation:
    """Estimate how important each trainable weight is for what the model knows, from a sample of its training text.

        fisher:  Omega_i = sum_examples (d log p(labels of the example) / d w_i)^2 / number of label tokens
        mas:     Omega_i = sum_examples |d S / d w_i| / number of label tokens,   S = sum_positions ||softmax||^2

    The model is run in eval mode without autocast and comes back as it was: mode, gradients and the global random
    state are untouched. The importance is summed in float32 (float64 for float64 models).

    Args:
        model: a causal language model (any module whose output has `.logits` of shape [B, T, V]).
        dataset: examples with `input_ids` and, where present, `attention_mask` and `labels`; padded or packed.
        method: "fisher" or "mas".
        labels: Fisher only: "ground_truth", "predicted" or "sampled".
        mas_output: MAS only: the output whose squared norm is taken, "probabilities" or "logits".
        num_examples: how many examples to sample.
        batch_size: examples collated together; each has a forward and a backward pass of its own.
        data_collator: makes a batch with `labels` of a list of examples; by default they are padded on the right and
            every real token is a label.
        seed: of the sample of examples and of sampled labels.
        progress: show a progress bar.

    Returns:
        The importance by parameter name, the model's weights as anchor, and metadata.

    Raises:
        ValueError: unknown method or label source, an encoder-decoder, an empty dataset, one without a label token, a
            batch without `input_ids` or `labels`, no trainable parameter, or an estimate that is not finite.
    """
    estimator, label_source, output = ImportanceMethod(method), LabelSource(labels), mas.MASOutput(mas_output)
    if estimator is ImportanceMethod.FISHER:
        objective = fisher.log_likelihood(label_source, torch.Generator().manual_seed(seed))
        statistic, described = Statistic.SQUARE, {"labels": label_source.value, "unit": NATS_PER_TOKEN}
    else:
        objective = mas.squared_output_norm(output)
        statistic, described = Statistic.ABSOLUTE, {"output": output.value, "unit": mas.UNIT}

    model = unwrap(model)
    if isinstance(model, PreTrainedModel) and model.config.is_encoder_decoder:
        raise ValueError(f"expected a decoder-only language model, got the encoder-decoder {type(model).__name__}")
    parameters = trainable_parameters(model)
    device = next(iter(parameters.values())).device
    examples = sample_examples(dataset, num_examples, seed)
    sums = zeros_like_parameters(model)
    num_tokens = 0
    with (
        evaluating(model),
        in_full_precision(model),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        tqdm(total=len(examples), desc=f"importance ({estimator.value})", unit="example", disable=not progress) as bar,
    ):
        for batch in batches(examples, batch_size, data_collator, device):
            num_tokens += _count_labels(batch)
            add_gradient_statistic_reference(sums, model, batch, objective, statistic)
            bar.update(len(batch["labels"]))
    if num_tokens == 0:
        raise ValueError(
            f"expected at least one label token, got none in {len(examples)} examples: every label is {IGNORED} or "
            "every example is shorter than two tokens; check the labels and the attention mask"
        )
    for total in sums.values():
        total /= num_tokens
    return Consolidation.create(
        importance=sums,
        anchor={name: p.detach().clone() for name, p in parameters.items()},
        method=estimator.value,
        num_examples=len(examples),
        num_tokens=num_tokens,
        seed=seed,
        **described,
    )


def _count_labels(batch: Batch) -> int:
    """Count the tokens that the model is asked to predict: the first position of an example predicts nothing."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())
