"""Let a model write rows of text with its answers, which keep it near them while it learns, and store them beside it.

accelerate launch recipes/generate_rehearsal.py --model gpt2 --output_dir out/gpt2-old

With `--text` it answers old text instead.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ewc_hf.cli import LoadingArguments, beside, parse_arguments, require_effective
from ewc_hf.data import load_texts, pack
from ewc_hf.engines import agreed, launched, place, process_index
from ewc_hf.rehearsal import REHEARSAL_ROWS, TOP_K, Rehearsal, answer_rehearsal, generate_rehearsal

_OF_TEXT, _OF_MODEL = ("column", "split", "max_documents"), ("temperature", "chat")
"""Options that only rows of old text, and only those of the model's own text, have."""


@dataclass
class RehearseArguments:
    """Which model answers, and to which text."""

    model: str = field(metadata={"help": "Old checkpoint: a folder or a Hub id."})
    output_dir: str | None = field(
        default=None, metadata={"help": "Where the rows are stored; by default the model's folder."}
    )
    text: str | None = field(
        default=None,
        metadata={"help": "Old text in place of the model's own: a file, a folder or a Hub dataset."},
    )
    column: str | None = field(default=None, metadata={"help": "Column of the old text."})
    split: str = field(default="train", metadata={"help": "Split of a folder or Hub dataset of old text."})
    max_documents: int | None = field(default=None, metadata={"help": "Take blocks from a random sample of the text."})
    num_rows: int = field(default=2048, metadata={"help": "Rows; of old text at most."})
    num_tokens: int = field(default=128, metadata={"help": "Tokens a row; best the block size of the task."})
    temperature: float = field(default=1.0, metadata={"help": "Of the model's own text; its answers are at 1."})
    top_k: int = field(default=TOP_K, metadata={"help": "Likeliest tokens that are stored at each position."})
    chat: bool = field(default=False, metadata={"help": "Begin rows as the chat template begins a user's turn."})
    batch_size: int = field(default=32, metadata={"help": "Rows that are made at a time; the draws depend on it."})
    seed: int = field(default=0, metadata={"help": "Of the draws, or of the choice of old text."})
    resume: bool = field(
        default=False, metadata={"help": "Go on where an interrupted call left off; else begin anew."}
    )


def main() -> None:
    """Make the rows, store and describe them.

    Raises:
        ValueError: no folder to store them in, or an option that would have no effect.
    """
    args, loading = parse_arguments(RehearseArguments, LoadingArguments, description=__doc__)
    output_dir = beside(args.model, args.output_dir)
    idle, need = (_OF_TEXT, "text") if args.text is None else (_OF_MODEL, "no text")
    require_effective(args, idle, need)
    launched()
    tokenizer = loading.tokenizer(args.model)
    blocks = None if args.text is None else _blocks(args, args.text, tokenizer)
    model = place(loading.model(args.model))

    unfinished = output_dir / "rehearsal_unfinished"
    if not args.resume:
        agreed(lambda: shutil.rmtree(unfinished) if process_index() == 0 and unfinished.is_dir() else None)
    rehearsal = _rehearsal(args, model, tokenizer, blocks, unfinished)
    rehearsal.save_pretrained(output_dir)
    if process_index() > 0:
        return
    path = output_dir / REHEARSAL_ROWS
    print(f"rows              {len(rehearsal)} of {args.num_tokens} tokens")
    print(f"tokens            {len(rehearsal) * args.num_tokens}")
    print(f"answers           {args.top_k} a position, and draws from all others")
    print(f"file              {path}, {path.stat().st_size / 2**20:.1f} MiB")
    print(f"sample            {tokenizer.decode(rehearsal.rows[0]['input_ids'])[:200]!r}")


def _blocks(args: RehearseArguments, text: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    texts = load_texts(text, split=args.split, max_documents=args.max_documents, seed=args.seed)
    return pack(texts, tokenizer, args.num_tokens, column=args.column, max_blocks=args.num_rows, seed=args.seed)


def _rehearsal(
    args: RehearseArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, blocks: Dataset | None,
    unfinished: Path,
) -> Rehearsal:  # fmt: skip
    """Make rows of old text, or else of the model's own."""
    how: dict[str, Any] = {"top_k": args.top_k, "batch_size": args.batch_size, "resume_folder": unfinished}
    if blocks is not None:
        return answer_rehearsal(model, blocks, tokenizer, **how)
    return generate_rehearsal(
        model,
        tokenizer,
        num_rows=args.num_rows,
        num_tokens=args.num_tokens,
        temperature=args.temperature,
        chat=args.chat,
        seed=args.seed,
        **how,
    )


if __name__ == "__main__":
    main()
