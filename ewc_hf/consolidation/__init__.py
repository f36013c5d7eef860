"""What is remembered?"""

from .consolidation import Consolidation
from .stored import CONFIG_NAME, NATS_PER_TOKEN, StoredConsolidation
from .summary import importance_of
from .weight_parts import depths_of, grouped, kind_of

__all__ = [
    "CONFIG_NAME",
    "NATS_PER_TOKEN",
    "Consolidation",
    "StoredConsolidation",
    "depths_of",
    "grouped",
    "importance_of",
    "kind_of",
]
