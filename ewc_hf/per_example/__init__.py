"""What is each example's gradient?"""

from .contributions import Statistic
from .layers import GradientPath
from .one_by_one import Objective, add_one_by_one
from .statistics import GradientStatistics, pieces_of

__all__ = [
    "GradientPath",
    "GradientStatistics",
    "Objective",
    "Statistic",
    "add_one_by_one",
    "pieces_of",
]
