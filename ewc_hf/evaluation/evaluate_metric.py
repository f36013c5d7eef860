"""Perplexity for the library `evaluate`, which loads this file by its path: `evaluate.load(METRIC)`, offline."""

import datasets
import evaluate

from ewc_hf.evaluation import token_perplexity


class TokenPerplexity(evaluate.Metric):
    """`exp` of the mean negative log-likelihood over the labels that count, examples of any lengths."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Perplexity per token, of losses that `position_nll` left in place of logits.",
            citation="",
            inputs_description="predictions: nats of each label; references: labels, -100 where they are ignored.",
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float32")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[list[int]]) -> dict[str, float]:
        if [*map(len, predictions)] != [*map(len, references)] or not references:
            raise ValueError(
                "expected a loss for each label of each example, got other numbers, or none; see position_nll"
            )
        length = max(map(len, references))
        nll = [[*losses, *[0.0] * (length - len(losses))] for losses in predictions]
        labels = [[*each, *[-100] * (length - len(each))] for each in references]
        return token_perplexity(nll, labels)
