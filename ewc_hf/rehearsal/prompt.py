"""What a model's own text begins with."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

logger = logging.get_logger(__name__)
_WORDS = "WORDS"


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, chat: bool) -> list[int]:
    """Return the tokens from which a model writes on: its beginning-of-text token, or the beginning of a user's turn.

    Args:
        tokenizer: the model's.
        chat: begin as the chat template does before a user's words.

    Raises:
        ValueError: there is no such token, or no template, or it does not repeat a user's words.
    """
    if not chat:
        if tokenizer.chat_template is not None:
            logger.warning(
                "The tokenizer has a chat template, and the rows begin without it: a model that was trained on chats "
                "would never write such text. `chat=True` (`--chat`) begins with a user's turn"
            )
        begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if begin is None:
            raise ValueError(
                "expected a tokenizer with a beginning- or end-of-text token to begin with, got one with neither; set "
                "`tokenizer.bos_token`"
            )
        return [begin]
    if tokenizer.chat_template is None:
        raise ValueError("expected a tokenizer with a chat template for chat=True, got one without; leave chat out")
    whole = tokenizer.apply_chat_template([{"role": "user", "content": _WORDS}], tokenize=False)
    before, found, _ = whole.partition(_WORDS)
    tokens = tokenizer(before, add_special_tokens=False)["input_ids"] if found else []
    if not tokens:
        raise ValueError(
            f"expected a chat template that writes a user's words after a beginning, got {whole!r:.200}; leave chat "
            "out"
        )
    return tokens
