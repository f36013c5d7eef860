"""How perplexity is measured: options that commands share, by the names of `evaluate_perplexity`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class WindowArguments:
    """How documents are read."""

    max_document_tokens: int | None = field(default=None, metadata={"help": "Cut documents after so many tokens."})
    window: int | None = field(
        default=None, metadata={"help": "Tokens that the model sees; default its context, at most 1024."}
    )
    stride: int | None = field(default=None, metadata={"help": "Tokens that the window moves by; default half of it."})
    bos_in_each_window: bool = field(
        default=False, metadata={"help": "Begin each window with the beginning-of-text token, not only the first."}
    )
    batch_size: int = field(default=8, metadata={"help": "Windows a forward pass."})
