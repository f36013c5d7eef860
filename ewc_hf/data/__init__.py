"""How does text become batches?"""

from .batching import Batch, Collator, batches
from .context import context_length, require_within_context, sequence_length
from .labels import IGNORED, is_encoder_decoder, next_tokens
from .logits import logit_pieces, token_nll, widened
from .packing import pack
from .padding import pad_examples
from .sampling import Example, sample_examples
from .text import document_texts, load_texts
from .vocabulary import require_known_tokens

__all__ = [
    "IGNORED",
    "Batch",
    "Collator",
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
    "require_known_tokens",
    "require_within_context",
    "sample_examples",
    "sequence_length",
    "token_nll",
    "widened",
]
