"""Perplexity on retention texts in every evaluation of a `Trainer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..data import tokenizer_of
from .perplexity import PerplexityResult, evaluate_perplexity

if TYPE_CHECKING:
    from transformers import Trainer as _SomeTrainer
else:
    _SomeTrainer = object

logger = logging.get_logger(__name__)


class RetentionMixin(_SomeTrainer):
    """Adds retention texts to a `Trainer` class that comes after it.

    It overrides `evaluate`, which has to tell that its loop is no prediction, and `evaluation_loop`, to add their
    perplexity before callbacks see the metrics. They are measured in the precision of the weights, which is float32
    for a model that was loaded so, whatever mixed precision it is trained in.

    Attributes:
        retention_results: the step and the results by name of this process's first evaluation, and of its last one.
    """

    def __init__(self, *args: Any, retention_texts: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        """Take every argument of the trainer class, and one more.

        Args:
            args: of the trainer class.
            retention_texts: held-out documents by name; `evaluate()` then reports, beside what it reports on
                `eval_dataset`, `eval_{name}_loss` (nats per token), `_perplexity` and `_bits_per_byte`, or with
                another prefix than `eval` where it is given one.
            kwargs: of the trainer class.

        Raises:
            ValueError: there is no fast tokenizer, or the best model would be the one that forgot most.
        """
        super().__init__(*args, **kwargs)
        self._retention_texts = dict(retention_texts or {})
        self._retention_prefix: str | None = None
        self._retention_is_read = False
        self.retention_results: list[tuple[int, dict[str, PerplexityResult]]] = []
        tokenizer = tokenizer_of(self.processing_class)
        if self._retention_texts and not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"expected a fast tokenizer for retention_texts, got {type(self.processing_class).__name__}; pass "
                "`processing_class=tokenizer`"
            )
        best = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if self.args.greater_is_better and any(best.startswith(f"{name}_") for name in self._retention_texts):
            raise ValueError(f"expected greater_is_better=False for '{best}', which is better when lower, got True")

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **kwargs: Any,
    ) -> dict[str, float]:
        """Evaluate as usual, and read the retention texts once, however many datasets there are."""
        outermost = self._retention_prefix is None
        if outermost:
            self._retention_prefix, self._retention_is_read = metric_key_prefix, False
        try:
            kwargs |= {"ignore_keys": ignore_keys, "metric_key_prefix": metric_key_prefix}
            return super().evaluate(eval_dataset, **kwargs)
        finally:
            if outermost:
                self._retention_prefix = None

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Add the retention texts' perplexity to the first loop of an evaluation, before callbacks see the metrics."""
        output = super().evaluation_loop(
            dataloader,
            description,
            prediction_loss_only=prediction_loss_only,
            ignore_keys=ignore_keys,
            metric_key_prefix=metric_key_prefix,
        )
        if self._retention_prefix is not None and not self._retention_is_read:
            self._retention_is_read = True
            results = self.measure_retention()
            self.retention_results = [*self.retention_results[:1], (self.state.global_step, results)]
            for name, result in results.items():
                key = f"{self._retention_prefix}_{name}"
                output.metrics[f"{key}_loss"] = result.nll
                output.metrics[f"{key}_perplexity"] = result.perplexity
                output.metrics[f"{key}_bits_per_byte"] = result.bits_per_byte
        return output

    def measure_retention(self) -> dict[str, PerplexityResult]:
        """Return how well the model predicts each of the retention texts; all processes call this."""
        results = {}
        for name, texts in self._retention_texts.items():
            results[name] = result = evaluate_perplexity(
                self.model,
                tokenizer_of(self.processing_class),
                texts,
                batch_size=self.args.per_device_eval_batch_size,
                progress=not self.args.disable_tqdm,
            )
            if result.precision not in ("float32", "float64"):
                logger.warning_once(
                    f"The retention texts are measured in {result.precision}, in which the model is held, or "
                    "computes under this engine; compare them with others of this precision only"
                )
        return results
