"""`ewc-hf perplexity`: a model's perplexity on local files or a Hub dataset."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..data import document_texts, load_texts
from ..engines import place, process_index
from ..evaluation import evaluate_perplexity
from ..storage import json_bytes, write_files
from .arguments import parse_arguments
from .loading import LoadingArguments
from .windows import WindowArguments


@dataclass
class PerplexityArguments:
    """Which model is measured on which text."""

    model: str = field(metadata={"help": "A folder or a Hub id."})
    text: str = field(metadata={"help": "Texts or chats: a file, a folder or a Hub dataset."})
    column: str | None = field(default=None, metadata={"help": "Column of the text or chats; default by its name."})
    split: str = field(default="test", metadata={"help": "Split of a folder or Hub dataset."})
    max_documents: int | None = field(default=None, metadata={"help": "Measure a random sample of the documents."})
    seed: int = field(default=0, metadata={"help": "Of the sample and of the bootstrap interval."})
    output_file: str | None = field(default=None, metadata={"help": "JSON file for the result with every document's."})

    def __post_init__(self) -> None:
        """Check that the result can be written.

        Raises:
            ValueError: a folder is where the file would be.
        """
        if self.output_file is not None and Path(self.output_file).is_dir():
            raise ValueError(
                f"expected a name for output_file, got the folder '{self.output_file}'; name a file in it"
            )


def main() -> None:
    """Measure and print."""
    description = "Measure perplexity with a sliding window."
    args, windows, loading = parse_arguments(
        PerplexityArguments, WindowArguments, LoadingArguments, description=description
    )
    dataset = load_texts(args.text, split=args.split, max_documents=args.max_documents, seed=args.seed)
    tokenizer = loading.tokenizer(args.model)
    result = evaluate_perplexity(
        place(loading.model(args.model)),
        tokenizer,
        document_texts(dataset, args.column, tokenizer),
        seed=args.seed,
        **asdict(windows),
    )
    if process_index() > 0:
        return
    print(result.summary())
    if args.output_file is not None:
        path = Path(args.output_file)
        write_files(path.parent, {path.name: json_bytes(asdict(result))})
