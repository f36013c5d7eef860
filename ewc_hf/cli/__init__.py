"""How is it called from a shell?"""

from .arguments import beside, parse_arguments
from .commands import main

__all__ = ["beside", "main", "parse_arguments"]
