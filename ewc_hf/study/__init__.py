"""What does protection cost and give, against what else users would do?"""

from .degradation import Degradation, write_degradation
from .diagnosis import DiagnosedPart, Diagnosis, diagnose
from .diagnosis_report import write_diagnosis
from .importance_picture import importance_picture
from .inspection import coloured_page, risen_table
from .interpolation import interpolate
from .interpolation_result import Interpolation
from .line import WeightLine
from .line_ends import tokenizer_folder
from .parsing import parse_settings
from .protocol import Measurement, StudyData, keep_protocol, require_one_gpu, require_text_for_budgets
from .pruned_checkpoint import ESTIMATED, MAGNITUDE, PrunedCheckpoint, prune_checkpoint
from .records import MissingRun, RunRecord, TextNames, mean_and_interval, with_interval
from .report import markdown_report, read_report, study_title, write_report
from .run import run_study
from .search import lambda_space, mean_nll
from .sequence import SequenceRun, SequenceTask, run_sequence
from .sequence_report import average_forgetting, backward_transfer, write_sequence
from .settings import Setting
from .sweep import MEAN_NLL, Sweep, SweptPoint, sweep_of, sweeps_of
from .sweep_report import sweep_table, write_sweep
from .texts import BudgetText, StudyTexts, read_study_data, warn_of_whole_documents

__all__ = [
    "ESTIMATED",
    "MAGNITUDE",
    "MEAN_NLL",
    "BudgetText",
    "Degradation",
    "DiagnosedPart",
    "Diagnosis",
    "Interpolation",
    "Measurement",
    "MissingRun",
    "PrunedCheckpoint",
    "RunRecord",
    "SequenceRun",
    "SequenceTask",
    "Setting",
    "StudyData",
    "StudyTexts",
    "Sweep",
    "SweptPoint",
    "TextNames",
    "WeightLine",
    "average_forgetting",
    "backward_transfer",
    "coloured_page",
    "diagnose",
    "importance_picture",
    "interpolate",
    "keep_protocol",
    "lambda_space",
    "markdown_report",
    "mean_and_interval",
    "mean_nll",
    "parse_settings",
    "prune_checkpoint",
    "read_report",
    "read_study_data",
    "require_one_gpu",
    "require_text_for_budgets",
    "risen_table",
    "run_sequence",
    "run_study",
    "study_title",
    "sweep_of",
    "sweep_table",
    "sweeps_of",
    "tokenizer_folder",
    "warn_of_whole_documents",
    "with_interval",
    "write_degradation",
    "write_diagnosis",
    "write_report",
    "write_sequence",
    "write_sweep",
]
