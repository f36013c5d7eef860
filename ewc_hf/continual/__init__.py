"""What is kept of many tasks that small networks learn one after another?"""

from .grid import ContinualRun, Grid, Point, points_of, sweeps_of_runs
from .images import Images, digits, read_images
from .learning import Lessons, learn_in_turn, measured_accuracy
from .networks import ConvNet, Perceptron
from .protection import Protection
from .rows import Form, Row, parse_rows
from .stack import Stack
from .tasks import Task, permuted_tasks, rotated_tasks

__all__ = [
    "ContinualRun",
    "ConvNet",
    "Form",
    "Grid",
    "Images",
    "Lessons",
    "Perceptron",
    "Point",
    "Protection",
    "Row",
    "Stack",
    "Task",
    "digits",
    "learn_in_turn",
    "measured_accuracy",
    "parse_rows",
    "permuted_tasks",
    "points_of",
    "read_images",
    "rotated_tasks",
    "sweeps_of_runs",
]
