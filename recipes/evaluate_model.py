r"""Measure a model on held-out texts and benchmarks; beside the old one, what it gained and lost.

accelerate launch recipes/evaluate_model.py --model out/tuned --base gpt2 --text books=books_test.parquet \
    --benchmarks arc_easy hellaswag --output_dir out/evaluation
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ewc_hf.cli import LoadingArguments, WindowArguments, parse_arguments
from ewc_hf.data import document_texts, load_texts
from ewc_hf.engines import place, process_index
from ewc_hf.evaluation import Scores, evaluate_benchmarks, evaluate_perplexity, scores_page, write_scores
from ewc_hf.study import tokenizer_folder


@dataclass
class EvaluateArguments:
    """Which models are compared, and on what."""

    model: str = field(metadata={"help": "The model, or an adapter with its own base: a folder or a Hub id."})
    base: str | None = field(
        default=None,
        metadata={"help": "The model that it was tuned from, to tell what changed: a folder or a Hub id."},
    )
    text: list[str] = field(
        default_factory=list,
        metadata={"help": "Held-out texts or chats, each [NAME=]SOURCE: a file, a folder or a Hub dataset."},
    )
    column: str | None = field(default=None, metadata={"help": "Column of the texts; default by its name."})
    split: str = field(default="test", metadata={"help": "Split of a folder or Hub dataset."})
    max_documents: int | None = field(default=None, metadata={"help": "Measure a random sample of each text."})
    benchmarks: list[str] = field(
        default_factory=list, metadata={"help": "Tasks or groups of lm_eval, such as arc_easy; needs ewc_hf[lm_eval]."}
    )
    benchmark_folder: str | None = field(
        default=None, metadata={"help": "Folder of your own lm_eval tasks, as YAML files."}
    )
    max_questions: int | None = field(default=None, metadata={"help": "The first questions of each task only."})
    num_fewshot: int | None = field(
        default=None, metadata={"help": "Solved questions before each; default the task's."}
    )
    seed: int = field(default=0, metadata={"help": "Of the samples."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder of evaluation.md and evaluation.json."})

    def __post_init__(self) -> None:
        """Check that there is something to measure.

        Raises:
            ValueError: neither text nor benchmark, or an option of one of them without it.
        """
        if not (self.text or self.benchmarks):
            raise ValueError("expected something to measure, got neither --text nor --benchmarks; name one")
        of_benchmarks, of_text = ("benchmark_folder", "max_questions", "num_fewshot"), ("column", "max_documents")
        for needed, names in (("benchmarks", of_benchmarks), ("text", of_text)):
            idle = [name for name in names if getattr(self, name) is not None]
            if idle and not getattr(self, needed):
                raise ValueError(f"expected --{needed} beside {', '.join(idle)}, got none; leave them out")


def main() -> None:
    """Measure, write, and print the page."""
    args, windows, loading = parse_arguments(EvaluateArguments, WindowArguments, LoadingArguments, description=__doc__)
    tokenizer = loading.tokenizer(args.model if args.base is None else str(tokenizer_folder(args.base, args.model)))
    texts = {}
    for name, source in _named(args.text).items():
        dataset = load_texts(source, split=args.split, max_documents=args.max_documents, seed=args.seed)
        texts[name] = document_texts(dataset, args.column, tokenizer)
    measured = partial(_scores, tokenizer=tokenizer, texts=texts, args=args, windows=windows, loading=loading)
    before, after = None if args.base is None else measured(args.base), measured(args.model)
    if process_index() == 0:
        if args.output_dir is None:
            print(scores_page(after, before))
        else:
            settings = {**asdict(args), **asdict(windows), "dtype": loading.dtype}
            print(write_scores(after, before, Path(args.output_dir), settings))


def _named(texts: Sequence[str]) -> dict[str, str]:
    """Return what is read by its name, which is the source itself where none is given.

    Raises:
        ValueError: two of one name.
    """
    named = {}
    for text in texts:
        name, equals, source = text.partition("=")
        name, source = (name, source) if equals and "/" not in name else (text, text)
        if name in named:
            raise ValueError(f"expected texts of different names, got two of '{name}'; name each: NAME=SOURCE")
        named[name] = source
    return named


def _scores(
    name: str,
    texts: Mapping[str, Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    args: EvaluateArguments,
    windows: WindowArguments,
    loading: LoadingArguments,
) -> Scores:
    gc.collect()  # the model before
    model = place(loading.model(name))
    benchmarks = []  # first, since a name may be unknown
    if args.benchmarks:
        benchmarks = evaluate_benchmarks(
            model,
            tokenizer,
            args.benchmarks,
            folder=args.benchmark_folder,
            limit=args.max_questions,
            num_fewshot=args.num_fewshot,
            batch_size=windows.batch_size,
        )
    found = {text: evaluate_perplexity(model, tokenizer, each, **asdict(windows)) for text, each in texts.items()}
    return Scores(name, found, benchmarks)


if __name__ == "__main__":
    main()
