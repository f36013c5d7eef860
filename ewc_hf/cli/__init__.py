"""How is it called from a shell?"""

from .arguments import parse_arguments

__all__ = [
    "parse_arguments",
]
