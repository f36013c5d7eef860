"""What a study measures of a model: the perplexity of both texts, and how it goes on from their beginnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..config import EWCConfig
from ..data import context_length
from ..engines import evaluating
from ..evaluation import PerplexityResult, evaluate_perplexity
from .protocol import Measurement, StudyData
from .records import RunRecord

_PROMPTS, _PROMPT_TOKENS, _WRITTEN_TOKENS = 3, 24, 40


def measured(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    training: EWCConfig,
    measurement: Measurement,
) -> PerplexityResult:
    """Return how well a model predicts documents, as a study measures it."""
    return evaluate_perplexity(
        model,
        tokenizer,
        texts,
        measurement.stride,
        window=measurement.window,
        max_document_tokens=measurement.max_document_tokens,
        batch_size=training.per_device_eval_batch_size,
        progress=False,
    )


@dataclass(frozen=True)
class Measure:
    """Measures models alike.

    Attributes:
        tokenizer: the models'.
        data: the texts.
        training: its `per_device_eval_batch_size`.
        measurement: how.
    """

    tokenizer: PreTrainedTokenizerBase
    data: StudyData
    training: EWCConfig
    measurement: Measurement

    def __call__(self, model: PreTrainedModel, writes: bool = False, **known: Any) -> RunRecord:
        """Return a model's record, on no curve yet: which ones it lies on is seen beside the others.

        Args:
            model: measured as it is.
            writes: whether its continuations are wanted.
            known: what else the record tells.
        """
        task, retention = (
            measured(model, self.tokenizer, texts, self.training, self.measurement)
            for texts in (self.data.task_texts, self.data.retention_texts)
        )
        return RunRecord(
            curves={},
            task_nll=task.nll,
            task_perplexity=task.perplexity,
            retention_nll=retention.nll,
            retention_perplexity=retention.perplexity,
            task_documents=[[document.nll_sum, document.num_tokens] for document in task.documents],
            retention_documents=[[document.nll_sum, document.num_tokens] for document in retention.documents],
            continuations=self._continuations(model) if writes else [],
            **known,
        )

    @torch.no_grad()
    def _continuations(self, model: PreTrainedModel) -> list[list[str]]:
        """Return [kind of text, prompt, continuation] for the beginning of some held-out documents of each kind."""
        written = []
        context = context_length(model) or _PROMPT_TOKENS + _WRITTEN_TOKENS
        num_tokens = min(_PROMPT_TOKENS, context // 2)
        sampling = GenerationConfig(
            do_sample=True,
            top_p=0.9,
            top_k=0,
            max_new_tokens=min(_WRITTEN_TOKENS, context - num_tokens),
            pad_token_id=self.tokenizer.eos_token_id,
        )
        with evaluating(model), torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(0)
            for kind, texts in (("task", self.data.task_texts), ("retention", self.data.retention_texts)):
                for text in [text for text in texts if text.strip()][:_PROMPTS]:
                    prompt = self.tokenizer(text, return_tensors="pt", truncation=True, max_length=num_tokens)
                    prompt = prompt["input_ids"].to(model.device)
                    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=sampling)
                    beginning, rest = tokens[0].split([prompt.shape[1], tokens.shape[1] - prompt.shape[1]])
                    written.append([kind, self.tokenizer.decode(beginning), self.tokenizer.decode(rest)])
        return written
