"""Running a model for what an objective differentiates."""

from __future__ import annotations

from torch import Tensor, nn

from ..data import Batch, is_encoder_decoder

_DECODER_INPUTS = {"decoder_input_ids", "decoder_inputs_embeds"}


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """Run a model on a batch.

    An encoder-decoder is given the labels, of which it makes its decoder's inputs; others compute no loss.

    Raises:
        ValueError: the logits do not have one row a label.
    """
    makes_decoder_inputs = is_encoder_decoder(model) and _DECODER_INPUTS.isdisjoint(batch.inputs)
    labels = {"labels": batch.labels} if makes_decoder_inputs and batch.labels.dim() > 1 else {}
    output = model(**batch.inputs, **labels)
    logits = output if isinstance(output, Tensor) else output.logits
    if logits.shape[:-1] != batch.labels.shape:
        raise ValueError(
            f"expected logits with one row for each of {tuple(batch.labels.shape)} labels, got logits of shape "
            f"{tuple(logits.shape)}; give each predicted position or example one integer label, and a model without "
            "virtual tokens, as PEFT's prompt tuning adds"
        )
    return logits


def require_distribution(logits: Tensor) -> None:
    """Check that a softmax over the logits tells something.

    Raises:
        ValueError: there is one output a label, as for a regression.
    """
    if logits.shape[-1] < 2:
        raise ValueError(
            "expected logits of two classes or more, got one output a label, as for a regression, whose softmax is 1; "
            "use method 'mas' with mas_output='logits'"
        )
