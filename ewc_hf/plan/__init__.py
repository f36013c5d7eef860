"""What memory and traffic will a training run need?"""

from .model_sizes import model_sizes, read_config
from .per_gpu import Engine, Precision, plan

__all__ = [
    "Engine",
    "Precision",
    "model_sizes",
    "plan",
    "read_config",
]
