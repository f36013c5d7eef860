"""What every recipe of fine-tuning does with its trainer."""

from __future__ import annotations

import math
from typing import Any

from transformers import EvalPrediction

from ..evaluation import (
    NllChange,
    example_nll,
    interval_over_documents,
    nll_change,
    perplexity_metrics,
    rise_in_words,
    shown_change,
)
from ..storage import markdown_table
from ..trainer import EWCMixin


def train_and_save(trainer: EWCMixin, resume: bool) -> None:
    """Train, and save the whole model and what the run learned to remember, in the output folder.

    Args:
        trainer: its arguments are an `EWCConfig` or the like.
        resume: whether to go on from the last complete checkpoint, where the arguments name none.
    """
    trainer.train(resume_from_checkpoint=resume or trainer.args.resume_from_checkpoint)
    if trainer.is_fsdp_enabled:  # its checkpoints are sharded, its result is one model
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model()
    if trainer.args.ewc_synaptic:
        trainer.synaptic_consolidation().save_pretrained(trainer.args.output_dir)


class HeldOutTask:
    """The `compute_metrics` of a trainer that keeps what each example costs, at its first evaluation and its last.

    Trainer(..., preprocess_logits_for_metrics=position_nll, compute_metrics=HeldOutTask())
    """

    def __init__(self) -> None:
        self._evaluations: list[EvalPrediction] = []

    def __call__(self, evaluated: EvalPrediction) -> dict[str, float]:
        """Return NLL, perplexity and number of tokens, and keep each token's NLL."""
        self._evaluations = [*self._evaluations[:1], evaluated]
        return perplexity_metrics(evaluated)

    def change_since(self, nll: float) -> NllChange | None:
        """Return the rise of the NLL since the first evaluation, its interval over examples; None if that was another.

        Args:
            nll: what the first evaluation came to.
        """
        first, last = self._evaluations[0], self._evaluations[-1]
        if perplexity_metrics(first)["nll"] != nll:
            return None
        (old, tokens), (new, _) = (example_nll(each.predictions, each.label_ids) for each in (first, last))
        return NllChange((new - old).sum() / tokens.sum(), interval_over_documents(new - old, tokens))


def evaluate_and_tell(trainer: EWCMixin) -> None:
    """Evaluate, store the metrics, and print what was gained and lost since the evaluation before the training."""
    metrics = trainer.evaluate()
    is_nll = not trainer.args.label_smoothing_factor and getattr(trainer.args, "loss_type", "nll").endswith("nll")
    has_diverged = metrics["eval_loss"] > 700
    if "eval_perplexity" not in metrics and is_nll and not has_diverged:
        metrics["eval_perplexity"] = math.exp(metrics["eval_loss"])
    trainer.save_metrics("eval", metrics)
    if trainer.is_world_process_zero():
        print(f"\n{_told(trainer, metrics)}\n")


def _told(trainer: EWCMixin, metrics: dict[str, float]) -> str:
    """Return a table of before and after, and the forgetting in words; intervals where this process read both."""
    rows, words = [["held-out", "before", "after", "rise"]], []
    evaluations = [logs for logs in trainer.state.log_history if "eval_loss" in logs]
    before = evaluations[0] if evaluations[0]["step"] == 0 else {}
    rows.append(_of_the_task(before, metrics, trainer.compute_metrics))
    results = trainer.retention_results or [(0, {})]
    (first_step, first), (_, last) = results[0], results[-1]
    for name, result in last.items():
        cells = ["-", f"{result.perplexity:.2f}", "-"]
        if first_step != 0 and (known_nll := before.get(f"eval_{name}_loss")) is not None:  # of a resumed run
            cells = [f"{math.exp(known_nll):.2f}", cells[1], f"{result.nll - known_nll:+.4f} nats per token"]
        elif first_step == 0:
            change = nll_change(first[name], result)
            cells = [
                f"{first[name].perplexity:.2f}",
                f"{result.perplexity:.2f}",
                f"{shown_change(change)} nats per token",
            ]
            words.append(rise_in_words(name, change))
        rows.append([f"perplexity on {name}", *cells])
    return "\n\n".join([markdown_table(rows), *words])


def _of_the_task(before: dict[str, float], metrics: dict[str, float], held_out: Any) -> list[str]:
    """Return the task's row: its NLL where the trainer measures that, or else its loss."""
    key, unit = ("eval_nll", " nats per token") if "eval_nll" in metrics else ("eval_loss", "")
    old, new = before.get(key), metrics[key]
    title = f"{'NLL' if unit else 'loss'} on the task"
    if old is None:
        return [title, "-", f"{new:.4f}", "-"]
    change = held_out.change_since(old) if unit and isinstance(held_out, HeldOutTask) else None
    return [title, f"{old:.4f}", f"{new:.4f}", shown_change(change or NllChange(new - old, None)) + unit]


def publish(trainer: EWCMixin) -> None:
    """Push model and card to the Hub where the arguments say so, or write the card into the output folder."""
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.create_model_card()
