"""How is it called from a shell?"""

from .arguments import parse_arguments
from .commands import main

__all__ = ["main", "parse_arguments"]
