"""What is kept of many tasks that small networks learn one after another?"""

from .grid import ContinualRun, Grid, GridOptions, Point, points_of, sweeps_of_runs
from .images import Images, digits, read_images
from .learning import Lessons, learn_in_turn, measured_accuracy
from .networks import ConvNet, Perceptron
from .paper import PERMUTED, ROTATED, Published, read_authors_curves
from .protection import Protection
from .report import write_grid_report
from .rows import Form, Row, parse_rows
from .stack import Stack
from .tasks import Task, permuted_tasks, rotated_tasks

__all__ = [
    "PERMUTED",
    "ROTATED",
    "ContinualRun",
    "ConvNet",
    "Form",
    "Grid",
    "GridOptions",
    "Images",
    "Lessons",
    "Perceptron",
    "Point",
    "Protection",
    "Published",
    "Row",
    "Stack",
    "Task",
    "digits",
    "learn_in_turn",
    "measured_accuracy",
    "parse_rows",
    "permuted_tasks",
    "points_of",
    "read_authors_curves",
    "read_images",
    "rotated_tasks",
    "sweeps_of_runs",
    "write_grid_report",
]
