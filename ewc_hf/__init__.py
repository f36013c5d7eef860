"""Fine-tune language models without forgetting: Elastic Weight Consolidation for Hugging Face."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import EWCConfig, EWCFields
    from .consolidation import Consolidation
    from .data import pack
    from .evaluation import PerplexityResult, evaluate_perplexity
    from .importance import SynapticIntelligence, estimate_importance, l2_to_start
    from .penalty import Coupling
    from .rehearsal import Rehearsal, answer_rehearsal, generate_rehearsal
    from .study import interpolate
    from .trainer import EWCMixin, EWCTrainer
    from .version import __version__

_ROOMS = {
    "Consolidation": "consolidation",
    "Coupling": "penalty",
    "EWCConfig": "config",
    "EWCFields": "config",
    "EWCMixin": "trainer",
    "EWCTrainer": "trainer",
    "PerplexityResult": "evaluation",
    "Rehearsal": "rehearsal",
    "SynapticIntelligence": "importance",
    "__version__": "version",
    "answer_rehearsal": "rehearsal",
    "estimate_importance": "importance",
    "evaluate_perplexity": "evaluation",
    "generate_rehearsal": "rehearsal",
    "interpolate": "study",
    "l2_to_start": "importance",
    "pack": "data",
}
"""Where each public name is; a room is imported once a name of it is asked for, so that commands start at once."""

__all__ = [
    "Consolidation",
    "Coupling",
    "EWCConfig",
    "EWCFields",
    "EWCMixin",
    "EWCTrainer",
    "PerplexityResult",
    "Rehearsal",
    "SynapticIntelligence",
    "__version__",
    "answer_rehearsal",
    "estimate_importance",
    "evaluate_perplexity",
    "generate_rehearsal",
    "interpolate",
    "l2_to_start",
    "pack",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name in _ROOMS:
        return globals().setdefault(name, getattr(import_module(f".{_ROOMS[name]}", __name__), name))
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Tell an interactive session all public names, and not only those that were imported already."""
    return sorted({*globals(), *__all__})
