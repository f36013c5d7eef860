"""`ewc-hf prune`: a model whose least important weights are zero, with what that costs in its card."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import document_texts, load_texts, pack
from ..importance import PruningScope, require_sparsity
from ..study import prune_checkpoint
from .arguments import command_line, parse_arguments
from .loading import CodeArguments


@dataclass
class PruneArguments:
    """What is pruned, and by which criterion."""

    model: str = field(metadata={"help": "A causal language model: a folder or a Hub id."})
    sparsity: float = field(metadata={"help": "Share of the weights of linear layers that become zero: 0.3."})
    output_dir: str = field(metadata={"help": "Folder of the pruned model."})
    criterion: str = field(
        default="magnitude",
        metadata={"help": "magnitude; signal, fisher or mas, estimated on --text; or where an importance is stored."},
    )
    scope: PruningScope = field(
        default=PruningScope.NETWORK,
        metadata={"help": "'network' or 'layer': among which weights one chooses."},
    )
    text: str | None = field(default=None, metadata={"help": "Text like the pretraining text, for the criterion."})
    text_test: str | None = field(
        default=None, metadata={"help": "Held-out text on which perplexity is measured, before and after."}
    )
    column: str | None = field(default=None, metadata={"help": "Column of the text; default by its name."})
    num_examples: int = field(default=512, metadata={"help": "Blocks of text to read."})
    block_size: int = field(default=128, metadata={"help": "Tokens a block."})
    max_documents: int = field(default=200, metadata={"help": "Documents that the blocks are sampled from."})
    max_test_documents: int | None = field(default=None, metadata={"help": "Measure a random sample of documents."})
    seed: int = field(default=0, metadata={"help": "Of the samples."})


def main() -> None:
    """Prune, write, and print what it costs."""
    description = "Set the least important weights of a language model to zero."
    args, code = parse_arguments(PruneArguments, CodeArguments, description=description)
    require_sparsity(args.sparsity)
    tokenizer = code.tokenizer(args.model)
    examples, held_out = None, []
    if args.text is not None:
        texts = load_texts(args.text, max_documents=args.max_documents, seed=args.seed)
        examples = pack(texts, tokenizer, args.block_size, column=args.column)
    if args.text_test is not None:
        texts = load_texts(args.text_test, split="test", max_documents=args.max_test_documents, seed=args.seed)
        held_out = document_texts(texts, args.column, tokenizer)
    result = prune_checkpoint(
        args.model,
        args.output_dir,
        args.sparsity,
        args.criterion,
        examples,
        held_out,
        args.scope,
        args.num_examples,
        args.seed,
        command=command_line(),
        trust_remote_code=code.trust_remote_code,
    )
    print(f"pruned       {result.sparsity:.1%} of the weights of linear layers")
    if result.before is not None and result.after is not None:
        print(f"perplexity   {result.before.perplexity:.2f} before, {result.after.perplexity:.2f} after")
    print(f"model        {args.output_dir}")
