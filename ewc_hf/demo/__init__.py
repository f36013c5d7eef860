"""What does it do with nothing at hand?"""

from .run import NAMES, run_demo

__all__ = ["NAMES", "run_demo"]
