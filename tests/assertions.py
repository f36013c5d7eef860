"""What tests of several files assert."""


def assert_same(got, expected, relative=1e-10):
    """Relative to each tensor's largest value; a key bias, whose true gradient is zero, holds round-off only."""
    assert got.keys() == expected.keys()
    round_off = 1e-14 * max(value.max() for value in expected.values())
    for name, value in expected.items():
        assert (got[name] - value).abs().max() <= relative * value.abs().max() + round_off, name
