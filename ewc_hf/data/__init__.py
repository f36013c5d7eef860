"""How does text become batches?"""

from .batching import Batch, Collator, batches
from .context import ContextMixin, context_length, require_within_context, sequence_length
from .documents import document_texts
from .labels import IGNORED, is_encoder_decoder, next_tokens, predicts_next_token, transformers_model
from .logits import logit_pieces, token_nll, widened
from .packing import pack
from .padding import pad_examples
from .sampling import Example, sample_examples
from .text import load_texts
from .vocabulary import require_known_tokens, token_table, tokenizer_of

__all__ = [
    "IGNORED",
    "Batch",
    "Collator",
    "ContextMixin",
    "Example",
    "batches",
    "context_length",
    "document_texts",
    "is_encoder_decoder",
    "load_texts",
    "logit_pieces",
    "next_tokens",
    "pack",
    "pad_examples",
    "predicts_next_token",
    "require_known_tokens",
    "require_within_context",
    "sample_examples",
    "sequence_length",
    "token_nll",
    "token_table",
    "tokenizer_of",
    "transformers_model",
    "widened",
]
