"""How does text become batches?"""

from .batching import Batch, Collator, batches
from .labels import IGNORED, is_encoder_decoder, next_tokens, token_nll
from .packing import pack
from .padding import pad_examples
from .sampling import Example, sample_examples
from .text import document_texts, load_texts

__all__ = [
    "IGNORED",
    "Batch",
    "Collator",
    "Example",
    "batches",
    "document_texts",
    "is_encoder_decoder",
    "load_texts",
    "next_tokens",
    "pack",
    "pad_examples",
    "sample_examples",
    "token_nll",
]
