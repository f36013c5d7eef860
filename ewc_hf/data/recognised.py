"""What was made of a dataset is told once, and what makes nothing of it is refused."""

from __future__ import annotations

from itertools import groupby

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..engines import process_index
from .chat import Chat
from .documents import RowForm, encode, naming_row
from .labels import IGNORED
from .template import applies_template

logger = logging.get_logger(__name__)

_SHOWN = 60
"""Characters of a piece that are shown."""


def tell_once(
    dataset: Dataset | IterableDataset, form: RowForm, tokenizer: PreTrainedTokenizerBase, learn_from: str | None
) -> None:
    """Tell how chats and completions are written, with the first as text, what is learned being in brackets.

    Plain text needs no word.
    """
    first = next(iter(dataset), None)
    if first is None or process_index() > 0:
        return
    document = form.document(first, 0)
    if isinstance(document, Chat):
        by_template = applies_template(document, tokenizer)
        written = "by the tokenizer's chat template" if by_template else "as lines of `role: words`"
    elif all(learned for _, learned in document):
        return
    else:
        written = "one after the other"
    with naming_row(0):
        ids, labels = encode(document, tokenizer, learn_from)
    learned = learn_from or ("the completion" if len(form.columns) > 1 else "everyone")
    logger.warning_once(
        f"Documents of {' and '.join(form.columns)}, written {written}, learned from {learned}. The first, with what "
        f"is learned in brackets: {_shown(ids, labels, tokenizer)}"
    )


def require_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that makes nothing of a text.

    Raises:
        ValueError: it is such a one, as transformers makes of a folder without a tokenizer's files.
    """
    if not tokenizer("a text", add_special_tokens=False)["input_ids"]:
        raise ValueError(
            f"expected a tokenizer that knows tokens, got {type(tokenizer).__name__} of {len(tokenizer)} entries, "
            f"which makes none of a text; '{tokenizer.name_or_path}' may lack a tokenizer's files: save the "
            "tokenizer there, or name the folder that has them"
        )


def _shown(ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    text = ""
    for learned, run in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED):
        words = tokenizer.decode([token for token, _ in run])
        words = words if len(words) <= _SHOWN else f"{words[: _SHOWN // 2]} ... {words[-_SHOWN // 2 :]}"
        text += f"[{words}]" if learned else words
        if len(text) > 6 * _SHOWN:
            return f"{text!r} ..."
    return repr(text)
