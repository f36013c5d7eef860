"""Chats: who speaks, what is said and whose words are learned; and how they are written without a chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Piece = tuple[str, bool]
"""A piece of a text, and whether its tokens are labels."""

_SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "system": "system",
    "function_call": "assistant", "function_response": "tool", "observation": "tool", "tool": "tool",
}  # fmt: skip


@dataclass(frozen=True)
class Chat:
    """A dialog.

    Attributes:
        messages: as chat templates take them, each with `role` and `content`.
        answer: index of the first message that is learned where no role is named, what precedes it being the prompt;
            None where there is no prompt, and all is learned.
        free_names: whether the roles are any speakers' names, which no chat template knows.
        tools: that the assistant may call, as chat templates take them.
    """

    messages: list[dict[str, Any]]
    answer: int | None = None
    free_names: bool = False
    tools: list[Any] | None = None

    def learned_runs(self, learn_from: str | None) -> list[tuple[int, int]]:
        """Return the first and the last message of each run of words that are labels.

        Args:
            learn_from: the role whose words are, message by message; None is the answer as a whole or, without a
                prompt, everyone's.
        """
        if learn_from is None:
            return [(self.answer or 0, len(self.messages) - 1)]
        return [(index, index) for index, message in enumerate(self.messages) if message["role"] == learn_from]

    def is_learned_from_assistant_only(self, learn_from: str | None) -> bool:
        """Tell whether the labels are what the assistant says, in all of its messages."""
        if learn_from is not None or self.answer is None:
            return learn_from == "assistant"
        by_assistant = [message["role"] == "assistant" for message in self.messages]
        return all(by_assistant[self.answer :]) and not any(by_assistant[: self.answer])

    def is_learned_whole(self, learn_from: str | None) -> bool:
        """Tell whether all tokens are labels, names included."""
        return learn_from is None and self.answer is None


def chat_of(turns: Any, tools: list[Any] | None = None) -> Chat:
    """Read a list of turns: `role` and `content`, ShareGPT's `from` and `value`, or `speaker` and `text`.

    Raises:
        ValueError: these keys are missing, or their values are no text.
    """
    if not isinstance(turns, list):
        raise ValueError(f"expected a text or a list of turns, got {turns!r:.200}; filter such rows out")
    messages = [_message(turn) for turn in turns]
    return Chat(messages, free_names=bool(turns) and "speaker" in turns[0], tools=tools)


def lines_of(chat: Chat, learn_from: str | None = None) -> list[Piece]:
    r"""Write a dialog as `role: words\n` lines; tool calls as JSON.

    Args:
        chat: the dialog.
        learn_from: see `Chat.learned_runs`; roles themselves are labels only where all is.

    Returns:
        Pieces that join to the whole.
    """
    whole, pieces = chat.is_learned_whole(learn_from), []
    runs = chat.learned_runs(learn_from)
    for index, message in enumerate(chat.messages):
        learned = any(first <= index <= last for first, last in runs)
        pieces += [(f"{message['role']}:", whole), (f" {_words(message)}\n", learned)]
    return pieces


def _message(turn: Any) -> dict[str, Any]:
    keys = turn.keys() if isinstance(turn, Mapping) else set()
    if "role" in keys and keys & {"content", "tool_calls"}:
        message = {key: without_nulls(value) for key, value in turn.items() if value is not None or key == "role"}
        message.setdefault("content", None)
        if isinstance(message["content"], list):  # of texts; templates that know no parts would write them as a list
            message["content"] = _joined(message["content"])
    elif {"from", "value"} <= keys:
        message = {"role": _SHAREGPT_ROLES.get(turn["from"], turn["from"]), "content": turn["value"]}
    elif {"speaker", "text"} <= keys:
        message = {"role": turn["speaker"], "content": turn["text"]}
    else:
        raise ValueError(
            "expected turns with 'role' and 'content', 'from' and 'value' or 'speaker' and 'text', got "
            f"{sorted(keys) or repr(turn)}; rename the keys"
        )
    if not isinstance(message["role"], str):
        raise ValueError(f"expected the speaker of each turn as text, got {message['role']!r}; filter such rows out")
    _words(message)
    return message


def _words(message: Mapping[str, Any]) -> str:
    """Return what is said, and the calls of tools."""
    said, calls = message["content"], message.get("tool_calls")
    if not calls:
        return _joined(said)
    written = json.dumps(calls, ensure_ascii=False)
    return f"{_joined(said)} {written}" if said else written


def _joined(said: Any) -> str:
    """Return a text, or the texts of parts `{"type": "text", "text": ...}` as one."""
    if isinstance(said, str):
        return said
    texts = []
    for part in said if isinstance(said, list) else [said]:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ValueError(
                "expected what is said as a text or a list of parts {'type': 'text', 'text': ...}, got "
                f"{part!r:.200}; filter such rows out"
            )
        texts.append(text)
    return "".join(texts)


def without_nulls(value: Any) -> Any:
    """Leave out the keys that Arrow adds to a mapping because others of the column have them."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value
