"""How is it called from a shell?"""

from .arguments import beside, command_line, parse_arguments
from .loading import CodeArguments, LoadingArguments
from .training import publish, train_and_save
from .windows import WindowArguments

__all__ = [
    "CodeArguments",
    "LoadingArguments",
    "WindowArguments",
    "beside",
    "command_line",
    "parse_arguments",
    "publish",
    "train_and_save",
]
