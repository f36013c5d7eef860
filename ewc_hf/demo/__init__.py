"""What does it do with nothing at hand?"""

from .run import run_demo

__all__ = [
    "run_demo",
]
