"""Which tokens are scored in which window."""

from hypothesis import given
from hypothesis import strategies as st
from measured_texts import first_window

from ewc_hf.evaluation.windows import windows


@given(length=st.integers(0, 60), window=st.integers(2, 20), data=st.data())
def test_every_token_but_the_first_is_scored_once_in_its_first_window(length, window, data):
    stride = data.draw(st.integers(1, window - 1))
    scored_tokens = []
    for tokens, scored in windows(list(range(length)), window, stride):
        assert len(tokens) <= window
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
        assert 1 <= scored < len(tokens), "the first of a window has no context"
        for position in tokens[-scored:]:
            assert tokens[0] == first_window(position, window, stride)
            assert position - tokens[0] >= min(window - stride, position)
        scored_tokens += tokens[-scored:]
    assert scored_tokens == list(range(1, length))
