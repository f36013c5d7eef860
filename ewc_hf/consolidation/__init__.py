"""What is remembered?"""

from .consolidation import NATS_PER_TOKEN, Consolidation
from .stored import CONFIG_NAME, StoredConsolidation

__all__ = [
    "CONFIG_NAME",
    "NATS_PER_TOKEN",
    "Consolidation",
    "StoredConsolidation",
]
