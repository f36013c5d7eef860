"""What does protection cost and give, against what else users would do?"""

from .interpolation import interpolate
from .interpolation_result import Interpolation
from .line import WeightLine
from .parsing import parse_settings
from .protocol import Measurement, StudyData, require_one_gpu
from .records import MissingRun, RunRecord, TextNames
from .report import markdown_report, read_report, write_report
from .run import run_study
from .settings import Setting

__all__ = [
    "Interpolation",
    "Measurement",
    "MissingRun",
    "RunRecord",
    "Setting",
    "StudyData",
    "TextNames",
    "WeightLine",
    "interpolate",
    "markdown_report",
    "parse_settings",
    "read_report",
    "require_one_gpu",
    "run_study",
    "write_report",
]
