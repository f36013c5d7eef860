"""What memory and traffic will a training run need?"""

from .model_sizes import model_sizes, read_config
from .per_gpu import Engine, TrainingPrecision, plan

__all__ = [
    "Engine",
    "TrainingPrecision",
    "model_sizes",
    "plan",
    "read_config",
]
