"""`ewc-hf diagnose`: in which weights of a tuned model its forgetting sits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..data import document_texts, load_texts
from ..study import diagnose, tokenizer_folder, write_diagnosis
from .arguments import parse_arguments
from .loading import CodeArguments
from .windows import WindowArguments


@dataclass
class DiagnoseArguments:
    """Which models are compared, and on what."""

    base: str = field(metadata={"help": "The old model: a folder or a Hub id."})
    tuned: str = field(metadata={"help": "The tuned model, or an adapter of the old one: a folder or a Hub id."})
    retention: str = field(metadata={"help": "Held-out old text: a file, a folder or a Hub dataset."})
    output_dir: str = field(metadata={"help": "Folder of diagnosis.md, diagnosis.png and diagnosis.json."})
    consolidation: str | None = field(
        default=None, metadata={"help": "An importance of the old model, for what it predicts: a folder or a Hub id."}
    )
    retention_column: str | None = field(
        default=None, metadata={"help": "Column of the old text; default by its name."}
    )
    retention_split: str = field(default="test", metadata={"help": "Split of a folder or Hub dataset."})
    max_documents: int | None = field(default=30, metadata={"help": "Measure a random sample of the text."})
    seed: int = field(default=0, metadata={"help": "Of the sample."})


def main() -> None:
    """Measure, write, and print the page."""
    description = "Tell in which weights of a tuned model its forgetting sits: by kind of layer, and by depth."
    args, windows, code = parse_arguments(DiagnoseArguments, WindowArguments, CodeArguments, description=description)
    texts = load_texts(args.retention, split=args.retention_split, max_documents=args.max_documents, seed=args.seed)
    tokenizer = code.tokenizer(tokenizer_folder(args.base, args.tuned))
    diagnosis = diagnose(
        args.base,
        args.tuned,
        document_texts(texts, args.retention_column, tokenizer),
        consolidation=args.consolidation,
        trust_remote_code=code.trust_remote_code,
        **asdict(windows),
    )
    print(write_diagnosis(diagnosis, Path(args.output_dir)))
