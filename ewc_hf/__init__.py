"""Fine-tune language models without forgetting: Elastic Weight Consolidation for Hugging Face."""

from typing import TYPE_CHECKING, Any

from .config import EWCConfig, EWCFields
from .consolidation import Consolidation
from .evaluation import PerplexityResult, evaluate_perplexity
from .importance import SynapticIntelligence, estimate_importance, l2_to_start
from .penalty import Coupling
from .rehearsal import Rehearsal, answer_rehearsal, generate_rehearsal
from .trainer import EWCMixin, EWCTrainer
from .version import __version__

if TYPE_CHECKING:
    from .study import interpolate

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
]


def __getattr__(name: str) -> Any:
    """Return what draws pictures once it is asked for: matplotlib is slow to import."""
    if name == "interpolate":
        from .study import interpolate

        return interpolate
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
