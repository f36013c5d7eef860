"""`ewc-hf sweep`: which lambda, for one or several importances."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..config import EWCConfig
from ..importance import Method
from ..penalty import Coupling
from ..study import (
    MEAN_NLL,
    Measurement,
    StudyTexts,
    parse_settings,
    read_study_data,
    run_study,
    sweeps_of,
    write_sweep,
)
from .arguments import parse_arguments
from .loading import CodeArguments


@dataclass
class SweepArguments:
    """Which grid is run."""

    lambdas: list[float] = field(
        default_factory=lambda: [3.0, 10.0, 30.0, 100.0], metadata={"help": "Of each method; 0 is run once for all."}
    )
    methods: list[Method] = field(
        default_factory=lambda: [Method.FISHER], metadata={"help": "Whose importance: fisher, mas or l2."}
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Each lambda runs once with each."})


def main() -> None:
    """Run the grid, write and print the best lambda and its plateau."""
    description = (
        "Fine-tune over a grid of lambdas and seeds, and tell which lambda is best by the mean of the NLLs on the "
        "task and on the retention text. Finished runs are kept: the same command goes on where it was interrupted."
    )
    args, texts, code, training, measurement = parse_arguments(
        SweepArguments, StudyTexts, CodeArguments, EWCConfig, Measurement, description=description
    )
    if training.ewc_lambda is not None:
        raise ValueError(
            f"expected the grid in --lambdas, got --ewc_lambda {training.ewc_lambda:g} besides; leave it out"
        )
    lambdas = ",".join(f"{number:.12g}" for number in args.lambdas)
    coupling = Coupling(training.ewc_coupling or Coupling.DECOUPLED).value
    grid = [f"{Method(method).value}:{coupling}:{lambdas}" for method in args.methods]
    settings = parse_settings(["plain", *grid])
    data = read_study_data(texts, trust_remote_code=code.trust_remote_code)
    records = run_study(
        texts.model,
        data,
        settings,
        args.seeds,
        training,
        measurement,
        texts.shared,
        trust_remote_code=code.trust_remote_code,
    )
    print(write_sweep(sweeps_of(records), Path(training.output_dir), "Which lambda", MEAN_NLL))
