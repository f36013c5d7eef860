"""Which label each position predicts.

Shapes: B examples, T positions.
"""

from __future__ import annotations

import inspect

from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

IGNORED = -100
"""The label of a position that does not count, as everywhere in transformers."""
_CAUSAL_LOSSES = (None, "ForCausalLM", "ForConditionalGeneration")
"""The losses of transformers that shift labels; None is what classes such as `GPT2LMHeadModel` have."""


def predicts_next_token(model: nn.Module) -> bool:
    """Tell whether the logits of a position predict the label of the next one, as in decoder-only language models.

    Encoder-decoders, masked language models and classifiers of tokens predict the label at the same position.
    A module that neither is nor contains a model of transformers counts as a decoder-only one. This is what a class
    says of itself; `own_loss_shifts` asks its loss.
    """
    known = transformers_model(model)
    return known is None or (not is_encoder_decoder(known) and known.loss_type in _CAUSAL_LOSSES)


def is_encoder_decoder(model: nn.Module) -> bool:
    """Tell whether a model makes its decoder's inputs of its labels, whose tokens are not its `input_ids`."""
    known = transformers_model(model)
    if known is None or not known.config.is_encoder_decoder:
        return False
    return "decoder_input_ids" in inspect.signature(known.forward).parameters  # some heads have the encoder alone


def transformers_model(model: nn.Module) -> PreTrainedModel | None:
    """Return the model of transformers that a module is or contains."""
    return next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)


def next_tokens(labels_BT: Tensor) -> Tensor:
    """Return the label that each position predicts where it predicts the next one; the last predicts none."""
    return pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
