"""What does the old model answer, and how is a model kept at these answers?"""

from .answers import Answers, answers_of, answers_to
from .distil import kl_divergence
from .generate import TOP_K, answer_rehearsal, generate_rehearsal
from .record import RehearsalRecord, require_same_rehearsal
from .rehearser import Rehearser
from .rows import REHEARSAL_CONFIG, REHEARSAL_ROWS, Rehearsal, require_tokenizer

__all__ = [
    "REHEARSAL_CONFIG",
    "REHEARSAL_ROWS",
    "TOP_K",
    "Answers",
    "Rehearsal",
    "RehearsalRecord",
    "Rehearser",
    "answer_rehearsal",
    "answers_of",
    "answers_to",
    "generate_rehearsal",
    "kl_divergence",
    "require_same_rehearsal",
    "require_tokenizer",
]
