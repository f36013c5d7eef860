"""What does it do with nothing at hand?"""

from .run import NAMES, demo_data, run_demo

__all__ = ["NAMES", "demo_data", "run_demo"]
