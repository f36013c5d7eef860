"""How is it called from a shell?"""

from .arguments import beside, command_line, parse_arguments, require_effective
from .loading import CodeArguments, LoadingArguments
from .training import HeldOutTask, evaluate_and_tell, publish, train_and_save
from .windows import WindowArguments

__all__ = [
    "CodeArguments",
    "HeldOutTask",
    "LoadingArguments",
    "WindowArguments",
    "beside",
    "command_line",
    "evaluate_and_tell",
    "parse_arguments",
    "publish",
    "require_effective",
    "train_and_save",
]
