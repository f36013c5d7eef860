"""Chats in the words of a tokenizer's own chat template, and which tokens of them are learned."""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from .chat import Chat, Piece
from .labels import IGNORED

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


def applies_template(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the chat is written by the tokenizer's template."""
    return not chat.free_names and tokenizer.chat_template is not None


def templated_text(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat as its template writes it.

    Raises:
        ValueError: the template refuses it.
    """
    return _rendered(chat, tokenizer, len(chat.messages))


def templated_pieces(chat: Chat, tokenizer: PreTrainedTokenizerBase, learn_from: str | None) -> list[Piece]:
    """Return the chat as its template writes it, in pieces, with those learned that this adds for a learned message.

    What a template adds for a message is what its text has grown by, after the words that ask for an answer
    (`add_generation_prompt`) where the message is one.

    Raises:
        ValueError: the template refuses the chat, or writes earlier messages in another way once later ones follow.
    """
    text = templated_text(chat, tokenizer)
    if chat.is_learned_whole(learn_from):
        return [(text, True)]
    pieces, at = [], 0
    for first, last in chat.learned_runs(learn_from):
        start, end = _rendered(chat, tokenizer, first, asks=True), _rendered(chat, tokenizer, last + 1)
        for part in (start, end):
            if not text.startswith(part):
                raise ValueError(
                    "expected a chat template that writes each message in one way, whatever follows, got one that "
                    f"writes {part[-60:]!r} and then {text[: len(part)][-60:]!r}; mark what is learned by "
                    "{% generation %} in the template, or learn from everyone"
                )
        pieces += [(text[at : len(start)], False), (text[len(start) : len(end)], True)]
        at = len(end)
    return [*pieces, (text[at:], False)]


def marked_tokens(
    chat: Chat, tokenizer: PreTrainedTokenizerBase, learn_from: str | None
) -> tuple[list[int], list[int]] | None:
    """Return tokens and labels by the template's own marks of what the assistant says.

    Returns:
        None where there are no such marks, or others' words are learned.
    """
    template = tokenizer.get_chat_template(tools=chat.tools)
    if not chat.is_learned_from_assistant_only(learn_from) or not _GENERATION_MARK.search(template):
        return None
    encoding = _apply(chat.messages, chat, tokenizer, tokenize=True, return_assistant_tokens_mask=True)
    ids, mask = encoding["input_ids"], encoding["assistant_masks"]
    return ids, [token if counts else IGNORED for token, counts in zip(ids, mask, strict=True)]


def _rendered(chat: Chat, tokenizer: PreTrainedTokenizerBase, num_messages: int, asks: bool = False) -> str:
    """Return the first messages as text, and the words that ask for an answer where the next is the assistant's."""
    asks = asks and chat.messages[num_messages]["role"] == "assistant"
    if num_messages > 0:
        return _apply(chat.messages[:num_messages], chat, tokenizer, tokenize=False, add_generation_prompt=asks)
    if not asks:
        return ""
    alone = chat.messages[:1]  # nothing comes before it, which no template writes: the words are found within it
    text, asked = (
        _apply(alone, chat, tokenizer, tokenize=False, add_generation_prompt=more) for more in (False, True)
    )
    words = asked.removeprefix(text)
    return text[: text.index(words) + len(words)] if words and words in text else ""


def _apply(messages: list[dict[str, Any]], chat: Chat, tokenizer: PreTrainedTokenizerBase, **how: Any) -> Any:
    try:
        return tokenizer.apply_chat_template(messages, tools=chat.tools, return_dict=how["tokenize"], **how)
    except Exception as error:  # whatever a template raises
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"expected a chat that the tokenizer's template takes, got {type(error).__name__}: {error} for messages "
            f"of {roles}; filter such rows out"
        ) from error
