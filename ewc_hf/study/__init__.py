"""What does protection cost and give, against what else users would do?"""

from .degradation import Degradation, write_degradation
from .interpolation import interpolate
from .interpolation_result import Interpolation
from .line import WeightLine
from .parsing import parse_settings
from .protocol import Measurement, StudyData, keep_protocol, require_one_gpu
from .pruned_checkpoint import PrunedCheckpoint, prune_checkpoint
from .records import MissingRun, RunRecord, TextNames
from .report import markdown_report, read_report, write_report
from .run import run_study
from .search import lambda_space, mean_nll
from .settings import Setting
from .sweep import Sweep, SweptPoint, sweep_of, sweeps_of
from .sweep_report import sweep_table, write_sweep
from .texts import StudyTexts, read_study_data

__all__ = [
    "Degradation",
    "Interpolation",
    "Measurement",
    "MissingRun",
    "PrunedCheckpoint",
    "RunRecord",
    "Setting",
    "StudyData",
    "StudyTexts",
    "Sweep",
    "SweptPoint",
    "TextNames",
    "WeightLine",
    "interpolate",
    "keep_protocol",
    "lambda_space",
    "markdown_report",
    "mean_nll",
    "parse_settings",
    "prune_checkpoint",
    "read_report",
    "read_study_data",
    "require_one_gpu",
    "run_study",
    "sweep_of",
    "sweep_table",
    "sweeps_of",
    "write_degradation",
    "write_report",
    "write_sweep",
]
