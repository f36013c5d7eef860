"""`ewc-hf demo`: a small model is tuned on generated text, held and not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..demo import NAMES, run_demo
from ..study import markdown_report
from .arguments import parse_arguments


@dataclass
class DemoArguments:
    """Where the demo's files go."""

    output_dir: str = field(default="out/demo", metadata={"help": "Folder of the model and the report."})


def main() -> None:
    """Run the demo, print the report's tables and the picture's path."""
    description = "Tune a small model on generated text, held in several ways and not, and report what it forgets."
    (args,) = parse_arguments(DemoArguments, description=description)
    records = run_demo(args.output_dir)
    print(markdown_report(records, NAMES))
    print(f"picture: {Path(args.output_dir) / 'study' / 'report.png'}")
