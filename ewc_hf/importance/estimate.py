"""`estimate_importance`: one pass over a sample of text, ending in a `Consolidation`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from ..consolidation import Consolidation
from ..data import IGNORED, Collator, Example, batches, sample_examples
from ..engines import (
    evaluating,
    in_full_precision,
    is_sharded,
    num_processes,
    process_index,
    trainable_parameters,
    unwrap,
    without_cache,
)
from ..per_example import GradientStatistics, Statistic
from . import fisher, mas
from .estimator import Estimator
from .label_source import LabelSource
from .mas import MASOutput
from .methods import Method
from .signal import AbsoluteSignals
from .unfinished import UnfinishedEstimate


def estimate_importance(
    model: nn.Module,
    dataset: Dataset | Iterable[Example],
    method: Method | str = Method.FISHER,
    labels: LabelSource | str = LabelSource.GROUND_TRUTH,
    mas_output: MASOutput | str = MASOutput.PROBABILITIES,
    num_examples: int = 512,
    batch_size: int = 8,
    data_collator: Collator | None = None,
    seed: int = 0,
    progress: bool = True,
    resume_file: str | os.PathLike[str] | None = None,
) -> Consolidation:
    """Estimate how important each trainable weight is for what the model knows, from a sample of its training text.

        fisher:  Omega_i = sum_examples (d log p(labels of the example) / d w_i)^2 / number of label tokens
        mas:     Omega_i = sum_examples |d S / d w_i| / number of label tokens,   S = sum_positions ||softmax||^2
        signal:  Omega_ij = |W_ij| * mean |input_j|

    >>> consolidation = estimate_importance(model, blocks, num_examples=512)
    >>> consolidation.save_pretrained("old")

    A batch costs one forward and backward pass wherever that is exact, else one an example, as `metadata["paths"]`
    tells; `signal` needs the forward pass only. The model is run in eval mode without autocast and comes back as it
    was: mode, gradients and the global random state are untouched. Beside the importance, in float32 (float64 for
    float64 models), no memory of the model's size is taken: the anchor is the model's own weights until it is saved or
    handed to a trainer.

    Where `torch.distributed` is set up, all processes call this with the same model and dataset, and each does its
    share of the examples. Each then holds the same result or, of a model that FSDP2 shards, its part of it; what is
    done with a sharded result, such as saving it, is done by all processes too. FSDP2's own mixed precision stays on.

    Args:
        model: a model of transformers, or any module whose result is logits or has `.logits`. Which position predicts
            a label, its own loss tells, on the first batch.
        dataset: examples with the inputs of the model's `forward`, such as `input_ids` and `attention_mask`, and
            `labels`, which default to the `input_ids` of models that predict the next token; padded, packed, or of
            several lengths. Padding is no label and predicts none; where it would change what the model computes,
            examples of several lengths go one by one. Examples without a token are left out.
        method: "fisher", "mas" or "signal".
        labels: Fisher only: "ground_truth", "predicted" or "sampled".
        mas_output: MAS only: the output whose squared norm is taken, "probabilities" or "logits".
        num_examples: how many examples to sample.
        batch_size: examples a batch of each process; it changes speed and memory, not the estimate.
        data_collator: makes a batch with `labels` of a list of examples; by default sequences are padded on the right
            and, for decoder-only models, every real token is a label. Where it draws random numbers they are to be
            torch's, which are seeded for each batch.
        seed: of the sample of examples and of sampled labels.
        progress: show a progress bar.
        resume_file: where the unfinished estimate is written about once a minute. Where the file exists, the estimate
            goes on from there, to the same bits; it is removed when all is done. The batches that it holds are
            collated again, to check that they are the same. In one process only.

    Returns:
        The importance by parameter name, the model's weights as anchor, and metadata.

    Raises:
        ValueError: unknown method or label source, an empty dataset, one without a label token, a batch without inputs
            or `labels`, a token or label past the model's, a model whose own loss is not the labels' mean negative
            log-likelihood, no trainable parameter, an estimate that is not finite, a layer whose signal is not known,
            an adapter that was not trained yet, a `resume_file` of another estimate, collator or version or in several
            processes, or a model sharded by ZeRO-3.
    """
    method, label_source, output = Method(method), LabelSource(labels), MASOutput(mas_output)
    model = unwrap(model)
    parameters = trainable_parameters(model)
    _require_trained_adapters(parameters)
    examples = sample_examples(dataset, num_examples, seed)
    estimator: Estimator
    details, unit = {}, method.unit
    if method is Method.FISHER:
        objective = fisher.log_likelihood(label_source, seed)
        estimator = GradientStatistics(model, parameters, objective, Statistic.SQUARE)
        details["labels"], unit = label_source.value, fisher.unit_of(label_source)
    elif method is Method.MAS:
        estimator = GradientStatistics(model, parameters, mas.squared_output_norm(output), Statistic.ABSOLUTE)
        details["output"], unit = output.value, mas.unit_of(output)
    elif method is Method.SIGNAL:
        estimator = AbsoluteSignals(model, parameters)
    else:
        raise ValueError(
            f"expected 'fisher', 'mas' or 'signal', which read a sample of text, got '{method.value}'; use "
            "`l2_to_start(model)` or the callback `SynapticIntelligence`"
        )
    if resume_file is not None and num_processes() > 1:
        raise ValueError(
            f"expected resume_file=None in {num_processes()} processes, got '{resume_file}'; leave it out, or launch "
            "one process"
        )
    identity = {"method": method.value, **details, "unit": unit, "seed": seed, "batch_size": batch_size}
    unfinished = UnfinishedEstimate(resume_file, estimator, model.state_dict(), examples, identity)
    silent = not progress or process_index() > 0
    with (
        evaluating(model),
        in_full_precision(model),
        without_cache(model),
        torch.set_grad_enabled(method is not Method.SIGNAL),
        tqdm(total=len(examples), desc=f"importance ({method.value})", unit="example", disable=silent) as bar,
    ):
        start, first_token = time.perf_counter(), unfinished.num_tokens
        global_batch_size = batch_size * num_processes()
        for batch in batches(examples, global_batch_size, data_collator, model, seed):
            if not unfinished.replay(batch):
                unfinished.advance(batch, estimator.add(batch))
            bar.update(len(batch))
            tokens_a_second = (unfinished.num_tokens - first_token) / (time.perf_counter() - start)
            bar.set_postfix_str(f"{tokens_a_second:,.0f} tokens/s")
    if unfinished.num_tokens == 0:
        raise ValueError(
            f"expected at least one label token, got none in {len(examples)} examples: every label is {IGNORED} or "
            "every example is shorter than two tokens; check the labels and the attention mask"
        )
    estimator.gather()
    consolidation = Consolidation.create(
        importance=estimator.importance(unfinished.num_tokens),
        anchor={name: p.detach() for name, p in parameters.items()},
        anchor_is_borrowed=True,
        method=method.value,
        unit=unit,
        num_examples=len(examples),
        num_tokens=unfinished.num_tokens,
        seed=seed,
        paths={name: path.value for name, path in estimator.paths.items()},
        **details,
    )
    unfinished.remove()
    return consolidation


def _require_trained_adapters(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse adapters as they are made: one half is 0, and so would be the importance of the other."""
    begin_at_zero = {name: p for name, p in parameters.items() if "lora_B" in name or "lora_embedding_A" in name}
    if begin_at_zero and not any(is_sharded(p) or p.any() for p in begin_at_zero.values()):
        raise ValueError(
            f"expected trained adapters, got '{next(iter(begin_at_zero))}' of zeros, with which the importance of its "
            "other half is 0; estimate on the model without adapters: that protects one that adapters tune, too"
        )
