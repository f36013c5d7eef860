"""`ewc-hf inspect`: which weights are important, and which words a tuned model no longer predicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..consolidation import StoredConsolidation
from ..data import document_texts, load_texts
from ..engines import place, require_one_process
from ..evaluation import TokenLoss, token_losses
from ..storage import write_files
from ..study import coloured_page, importance_picture, risen_table, tokenizer_folder
from .arguments import parse_arguments
from .loading import LoadingArguments


@dataclass
class InspectArguments:
    """What is looked at: an importance, or two models on a text."""

    consolidation: str | None = field(default=None, metadata={"help": "An importance: a folder or a Hub id."})
    base: str | None = field(default=None, metadata={"help": "The old model: a folder or a Hub id."})
    tuned: str | None = field(default=None, metadata={"help": "The tuned model, or an adapter with its own base."})
    text: str | None = field(default=None, metadata={"help": "Held-out old text: a file, a folder or a Hub dataset."})
    column: str | None = field(default=None, metadata={"help": "Column of the text; default by its name."})
    split: str = field(default="test", metadata={"help": "Split of a folder or Hub dataset."})
    max_documents: int = field(default=3, metadata={"help": "Documents of the text that are read, a random sample."})
    max_document_tokens: int | None = field(default=400, metadata={"help": "Cut them after so many tokens."})
    tokens: int = field(default=20, metadata={"help": "Tokens of the table, those whose loss rose most."})
    seed: int = field(default=0, metadata={"help": "Of the sample."})
    output_dir: str = field(
        default="out/inspect", metadata={"help": "Folder of importance.png and tokens.html, what there is of them."}
    )

    def __post_init__(self) -> None:
        """Check that there is something to look at.

        Raises:
            ValueError: neither an importance nor two models and a text, or only some of these three, or no token.
        """
        pair = (self.base, self.tuned, self.text)
        if None in pair and (self.consolidation is None or any(pair)):
            raise ValueError(
                "expected --consolidation, or --base, --tuned and --text together, or all four, got base "
                f"{self.base}, tuned {self.tuned} and text {self.text}"
            )
        if self.tokens < 1 or (self.max_document_tokens is not None and self.max_document_tokens < 1):
            got = f"{self.tokens} and {self.max_document_tokens}"
            raise ValueError(f"expected tokens and max_document_tokens >= 1, got {got}")


def main() -> None:
    """Print tables, and write pictures of them."""
    description = "Draw which weights are important, and colour a text by what a tuned model no longer predicts."
    args, loading = parse_arguments(InspectArguments, LoadingArguments, description=description)
    require_one_process()
    folder = Path(args.output_dir)
    if args.consolidation is not None:
        stored = StoredConsolidation.open(args.consolidation)
        title = f"Importance ({stored.metadata['method']}, {stored.metadata['unit']})"
        write_files(folder, {"importance.png": importance_picture(stored.importance, title)})
        print(f"{stored!r}\n\n{stored.summary()}\n\npicture   {folder / 'importance.png'}")
    if args.base is not None:
        documents = list(zip(*_losses(args, loading), strict=True))
        page = coloured_page(f"{args.tuned}, beside {args.base}", documents)
        write_files(folder, {"tokens.html": page.encode()})
        print(f"{risen_table(documents, args.tokens)}\n\npage      {folder / 'tokens.html'}")


def _losses(args: InspectArguments, loading: LoadingArguments) -> list[list[list[TokenLoss]]]:
    """Return the losses of each document's tokens, by the old model and by the tuned one."""
    assert args.base is not None and args.tuned is not None and args.text is not None
    dataset = load_texts(args.text, split=args.split, max_documents=args.max_documents, seed=args.seed)
    tokenizer = loading.tokenizer(tokenizer_folder(args.base, args.tuned))
    texts = document_texts(dataset, args.column, tokenizer)
    losses = []
    for name in (args.base, args.tuned):
        model = place(loading.model(name))
        losses.append([token_losses(model, tokenizer, text, args.max_document_tokens) for text in texts])
        del model  # before the next one is loaded
    return losses
