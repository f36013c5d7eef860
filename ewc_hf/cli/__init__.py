"""How is it called from a shell?"""

from .arguments import beside, parse_arguments
from .commands import main
from .training import publish, train_and_save

__all__ = ["beside", "main", "parse_arguments", "publish", "train_and_save"]
