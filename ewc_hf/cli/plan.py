"""`ewc-hf plan`: the memory and traffic of fine-tuning a model with EWC, from its configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config import StateDtype
from ..plan import Engine, TrainingPrecision, model_sizes, plan, read_config
from ..storage import markdown_table
from .arguments import parse_arguments

_COLUMNS = {
    "weights": "weights",
    "master": "master weights",
    "gradients": "gradients",
    "optimizer": "AdamW",
    "importance": "importance",
    "anchor": "anchor",
    "buffers": "buffers",
    "total": "total",
    "sent": "sent a step",
}


@dataclass
class PlanArguments:
    """Which model is to be trained on what."""

    model: str = field(metadata={"help": "A folder with a config.json, or a Hub id; weights are not read."})
    gpus: int = field(default=1, metadata={"help": "GPUs in all."})
    engine: list[str] = field(
        default_factory=list,
        metadata={"help": f"Any of {', '.join(Engine.__members__.values())}; default all that so many GPUs run."},
    )
    precision: TrainingPrecision | str = field(
        default=TrainingPrecision.BF16, metadata={"help": "'bf16' is mixed precision, bf16=True."}
    )
    ewc_state_dtype: StateDtype | str = field(default=StateDtype.FLOAT32, metadata={"help": "As EWCConfig's."})
    offload: bool = field(default=False, metadata={"help": "As EWCConfig's ewc_offload."})


def main() -> None:
    """Print a Markdown table with a row for each engine."""
    description = "Tell the memory and traffic of fine-tuning a model with EWC."
    (args,) = parse_arguments(PlanArguments, description=description)
    names = args.engine or (["one_gpu"] if args.gpus == 1 else Engine.__members__.values())
    sizes = model_sizes(read_config(args.model))
    precision, state_dtype = TrainingPrecision(args.precision), StateDtype(args.ewc_state_dtype)
    rows = [["engine", *_COLUMNS.values()]]
    for engine in map(Engine, names):
        planned = plan(sizes, engine, args.gpus, precision, state_dtype, args.offload)
        rows.append([engine.value, *(f"{getattr(planned, name) / 2**30:.2f}" for name in _COLUMNS)])
    print(f"Parameters: {sizes.total:,}. GPUs: {args.gpus}. Precision: {precision.value}. GiB on each GPU:\n")
    print(markdown_table(rows))
    print("\nActivations, which depend on batch and length, come on top. The penalty sends nothing under any engine.")
