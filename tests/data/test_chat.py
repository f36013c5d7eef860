"""Dialogs written as text, and whose words of them are learned."""

import pytest
from dialogs import MESSAGES, TURNS, WRITTEN

from ewc_hf.data.chat import dialog_segments


@pytest.mark.parametrize("turns", [TURNS, MESSAGES], ids=["turns", "messages"])
@pytest.mark.parametrize("learn_from", [None, "ann", "bob", "nobody"])
def test_segments_join_to_the_text(turns, learn_from):
    segments = dialog_segments(turns, learn_from)
    assert "".join(text for text, _ in segments) == WRITTEN
    learned = "".join(text for text, learned in segments if learned)
    said = {"ann": " Hello there!\n \n", "bob": " Snow  fell, 🥊 and\nthe river… \n bob: I am well\n", "nobody": ""}
    assert learned == (WRITTEN if learn_from is None else said[learn_from])


@pytest.mark.parametrize(
    "turn", [{"speaker": "ann", "content": "x"}, {"role": "ann", "text": "x"}, {"text": "x"}, {"from": "ann"}]
)
def test_a_turn_without_its_keys_is_named(turn):
    with pytest.raises(ValueError, match=r"'speaker' and 'text' or 'role' and 'content', got \["):
        dialog_segments([turn])
