"""Perplexity on retention texts in every evaluation of a `Trainer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .perplexity import evaluate_perplexity

if TYPE_CHECKING:
    from transformers import Trainer as _SomeTrainer
else:
    _SomeTrainer = object


class RetentionMixin(_SomeTrainer):
    """Adds retention texts to a `Trainer` class that comes after it.

    It overrides `evaluation_loop`, to add their perplexity before callbacks see the metrics.
    """

    def __init__(self, *args: Any, retention_texts: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        """Take every argument of the trainer class, and one more.

        Args:
            args: of the trainer class.
            retention_texts: held-out documents by name; `evaluate()` then reports, beside what it reports on
                `eval_dataset`, `eval_{name}_loss` (nats per token), `_perplexity` and `_bits_per_byte`.
            kwargs: of the trainer class.

        Raises:
            ValueError: there is no tokenizer, or the best model would be the one that forgot most.
        """
        super().__init__(*args, **kwargs)
        self._retention_texts = dict(retention_texts or {})
        if self._retention_texts and self.processing_class is None:
            raise ValueError("expected a tokenizer for retention_texts, got None; pass `processing_class=tokenizer`")
        best = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if self.args.greater_is_better and any(best.startswith(f"{name}_") for name in self._retention_texts):
            raise ValueError(f"expected greater_is_better=False for '{best}', which is better when lower, got True")

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate as usual, and read the retention texts once: where there are several datasets, with the first."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        first = f"eval_{next(iter(self.eval_dataset))}" if isinstance(self.eval_dataset, dict) else "eval"
        if metric_key_prefix == first:
            for name, texts in self._retention_texts.items():
                result = evaluate_perplexity(
                    self.model,
                    self.processing_class,
                    texts,
                    batch_size=self.args.per_device_eval_batch_size,
                    progress=not self.args.disable_tqdm,
                )
                output.metrics[f"eval_{name}_loss"] = result.nll
                output.metrics[f"eval_{name}_perplexity"] = result.perplexity
                output.metrics[f"eval_{name}_bits_per_byte"] = result.bits_per_byte
        return output
