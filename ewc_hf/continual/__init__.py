"""What is kept of many tasks that small networks learn one after another?"""

from .grid import Grid, GridOptions, build_stack
from .images import Images, digits, num_classes, read_images, read_train_and_test
from .learning import Lessons, learn_in_turn, measured_accuracy
from .networks import ConvNet, Perceptron
from .paper import PERMUTED, ROTATED, Published, read_authors_curves
from .paths import PathEnd, follow_paths
from .protection import Protection
from .report import write_grid_report, write_pruning_beside_paper
from .rows import Form, Row, parse_rows
from .runs import ContinualRun, Point, points_of, sweeps_of_runs
from .spread import BINS, Spread, spread_by_kind
from .stabilization_report import write_stabilization
from .stack import Stack
from .tasks import Task, permuted_tasks, rotated_tasks

__all__ = [
    "BINS",
    "PERMUTED",
    "ROTATED",
    "ContinualRun",
    "ConvNet",
    "Form",
    "Grid",
    "GridOptions",
    "Images",
    "Lessons",
    "PathEnd",
    "Perceptron",
    "Point",
    "Protection",
    "Published",
    "Row",
    "Spread",
    "Stack",
    "Task",
    "build_stack",
    "digits",
    "follow_paths",
    "learn_in_turn",
    "measured_accuracy",
    "num_classes",
    "parse_rows",
    "permuted_tasks",
    "points_of",
    "read_authors_curves",
    "read_images",
    "read_train_and_test",
    "rotated_tasks",
    "spread_by_kind",
    "sweeps_of_runs",
    "write_grid_report",
    "write_pruning_beside_paper",
    "write_stabilization",
]
