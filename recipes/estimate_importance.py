"""Estimate how important each weight is for what a model knows, and store it beside the checkpoint.

accelerate launch recipes/estimate_importance.py --model gpt2 --text books.parquet --output_dir out/gpt2-ewc
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ewc_hf import Rehearsal, estimate_importance
from ewc_hf.cli import CodeArguments, beside, parse_arguments, require_effective
from ewc_hf.data import load_texts, pack, require_within_context
from ewc_hf.engines import launched, place
from ewc_hf.importance import LabelSource, MASOutput, Method
from ewc_hf.rehearsal import require_tokenizer


@dataclass
class ImportanceArguments:
    """Which importance is estimated, of which model and text."""

    model: str = field(metadata={"help": "Pretrained checkpoint: a folder or a Hub id."})
    text: str | None = field(
        default=None, metadata={"help": "Text like the pretraining text: a file, a folder or a Hub dataset."}
    )
    rehearsal: str | None = field(
        default=None,
        metadata={"help": "In place of text, rehearsal rows that the model wrote: a folder or a Hub id."},
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Where it is stored; by default the model's folder."}
    )
    column: str | None = field(default=None, metadata={"help": "Of text: its column."})
    split: str = field(default="train", metadata={"help": "Of text: the split of a folder or Hub dataset."})
    method: Method = field(default=Method.FISHER, metadata={"help": "Estimator."})
    labels: LabelSource = field(default=LabelSource.GROUND_TRUTH, metadata={"help": "Fisher: where labels come from."})
    mas_output: MASOutput = field(default=MASOutput.PROBABILITIES, metadata={"help": "MAS: whose norm is taken."})
    num_examples: int = field(default=512, metadata={"help": "Blocks of text to read."})
    block_size: int = field(default=128, metadata={"help": "Of text: tokens a block."})
    batch_size: int = field(default=8, metadata={"help": "Blocks a forward and backward pass."})
    max_documents: int = field(default=200, metadata={"help": "Of text: documents that blocks are sampled from."})
    seed: int = field(default=0, metadata={"help": "Of the sample."})
    resume: bool = field(
        default=False, metadata={"help": "Go on where an interrupted run of one process left off, to the same bits."}
    )


def main() -> None:
    """Estimate and store."""
    args, code = parse_arguments(ImportanceArguments, CodeArguments, description=__doc__)
    output_dir = beside(args.model, args.output_dir)
    if (args.text is None) == (args.rehearsal is None):
        raise ValueError(f"expected text or rehearsal, got {args.text} and {args.rehearsal}; give one of them")
    if args.text is None:
        require_effective(args, ("column", "split", "block_size", "max_documents"), "text")
    if args.method != Method.FISHER:
        require_effective(args, ("labels",), "method fisher")
    if args.method != Method.MAS:
        require_effective(args, ("mas_output",), "method mas")
    state = launched()

    # 1. The model and packed blocks of the text that it has to remember.
    tokenizer, model = code.tokenizer(args.model), place(code.model(args.model))
    if args.rehearsal is not None:
        rows = Rehearsal.from_pretrained(args.rehearsal)
        require_tokenizer(rows.metadata, tokenizer)
        require_within_context(model, rows.metadata["num_tokens"])
        blocks = rows.blocks
    else:
        require_within_context(model, args.block_size)
        texts = load_texts(args.text, split=args.split, max_documents=args.max_documents, seed=args.seed)
        blocks = pack(texts, tokenizer, args.block_size, column=args.column)

    # 2. One pass over a sample of them; one process alone writes about once a minute how far it is.
    unfinished = output_dir / "ewc_unfinished.safetensors" if args.resume or state.num_processes == 1 else None
    if unfinished is not None and not args.resume:
        unfinished.unlink(missing_ok=True)
    consolidation = estimate_importance(
        model,
        blocks,
        method=args.method,
        labels=args.labels,
        mas_output=args.mas_output,
        num_examples=args.num_examples,
        batch_size=args.batch_size,
        seed=args.seed,
        resume_file=unfinished,
    )

    # 3. Beside the checkpoint, which then holds the anchor, or with a copy of the anchor elsewhere.
    consolidation.save_pretrained(output_dir)


if __name__ == "__main__":
    main()
