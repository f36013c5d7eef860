"""What does protection cost and give, against what else users would do?"""

from .protocol import Measurement, StudyData
from .records import RunRecord
from .report import markdown_report
from .run import run_study
from .settings import parse_settings

__all__ = [
    "Measurement",
    "RunRecord",
    "StudyData",
    "markdown_report",
    "parse_settings",
    "run_study",
]
