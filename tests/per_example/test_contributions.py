"""What calls add to their parameters' gradients, against every example's dense gradient in float64."""

import pytest
import torch

from ewc_hf.per_example import contributions
from ewc_hf.per_example.contributions import OuterProducts, Rows, Statistic, Whole, Workspace, add_statistic

B, T, R, C = 3, 5, 7, 4
F = {Statistic.SQUARE: lambda gradient: gradient * gradient, Statistic.ABSOLUTE: abs}


class Draws:
    """Contributions to a weight [R, C], and what each example's gradient is made of."""

    def __init__(self, dtype=torch.float64):
        self.generator, self.dtype = torch.Generator().manual_seed(0), dtype

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def outer(self, positions=T):
        return OuterProducts(self.normal(B, positions, R), self.normal(B, positions, C))

    def rows(self, positions=T):
        """Some rows more than once in an example, some in several examples, the last never."""
        index_BT = torch.randint(0, R - 1, (B, positions), generator=self.generator)
        index_BT[:, 1:] = index_BT[:, :1].where(torch.arange(1, positions) % 3 == 0, index_BT[:, 1:])
        return Rows(index_BT, self.normal(B, positions, C))

    def whole(self):
        return Whole(self.normal(B, R, C))


def dense(contribution, b):
    """The gradient of one example, term by term."""
    gradient = torch.zeros(R, C, dtype=torch.float64)
    match contribution:
        case OuterProducts(left_BTR, right_BTC):
            for left_R, right_C in zip(left_BTR[b].double(), right_BTC[b].double(), strict=True):
                gradient += torch.outer(left_R, right_C)
        case Rows(index_BT, values_BTC):
            for row, values_C in zip(index_BT[b].tolist(), values_BTC[b].double(), strict=True):
                gradient[row] += values_C
        case Whole(gradients):
            gradient += gradients[b].double()
    return gradient


CASES = ["o", "r", "w", "oo", "rr", "ww", "or", "ro", "ow", "wr", "rwo", "wor", "orwrow"]
"""Calls in the order of their arrival: outer products, rows and whole gradients."""


@pytest.mark.parametrize("chunk", [1, 2 * C, 3 * C + 1, R * C, 1 << 20])
@pytest.mark.parametrize("statistic", Statistic)
@pytest.mark.parametrize("calls", CASES)
def test_equals_dense_gradients(calls, statistic, chunk, monkeypatch):
    """Calls of different lengths, added to what was there; chunks that do and do not divide the rows."""
    monkeypatch.setattr(contributions, "_CHUNK", chunk)
    draws = Draws()
    makers = {"o": draws.outer, "r": draws.rows, "w": lambda positions: draws.whole()}
    given = [makers[call](T + number) for number, call in enumerate(calls)]
    total = draws.normal(R, C)
    expected = total + sum(F[statistic](sum(dense(c, b) for c in given)) for b in range(B))
    add_statistic(total, given, B, statistic, Workspace())
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("calls", ["o", "r", "w", "or", "ww", "rr"])
def test_bfloat16_parts_are_summed_in_float32(calls):
    """Exact in the parts as they are: a sum or a square in bfloat16 would be off by a hundredth."""
    draws = Draws(torch.bfloat16)
    makers = {"o": draws.outer, "r": draws.rows, "w": draws.whole}
    given = [makers[call]() for call in calls]
    total = torch.zeros(R, C)
    add_statistic(total, given, B, Statistic.SQUARE, Workspace())
    expected = sum(sum(dense(c, b) for c in given) ** 2 for b in range(B))
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2, 2, 2)], ids=["scalar", "one number", "kernel"])
@pytest.mark.parametrize("statistic", Statistic)
@pytest.mark.parametrize("calls", [1, 2])
def test_whole_gradients_of_any_shape(calls, statistic, shape):
    draws = Draws()
    given = [Whole(draws.normal(B, *shape)) for _ in range(calls)]
    total = torch.ones(shape, dtype=torch.float64)
    add_statistic(total, given, B, statistic, Workspace())
    torch.testing.assert_close(total, 1 + F[statistic](sum(c.gradients for c in given)).sum(0))


def test_parts_of_one_value_for_all_positions_are_taken():
    """Autograd hands such expanded tensors on, without memory of their own."""
    g_BTR = torch.ones(1, 1, 1, dtype=torch.float64).expand(B, T, R)
    x_BTC = Draws().normal(1, T, C).expand(B, T, C)
    total = torch.zeros(R, C, dtype=torch.float64)
    add_statistic(total, [OuterProducts(g_BTR, x_BTC)], B, Statistic.SQUARE, Workspace())
    torch.testing.assert_close(total, B * x_BTC[0].sum(0).square().expand(R, C))


@pytest.mark.parametrize("statistic", Statistic)
def test_one_example_at_a_time_agrees(statistic):
    """`add` is the twin of `of` that adds in place, in the total's dtype."""
    gradient = Draws(torch.bfloat16).normal(R, C)
    total = torch.ones(R, C)
    statistic.add(total, gradient)
    torch.testing.assert_close(total, 1 + statistic.of(gradient.float()))
    assert gradient.dtype == torch.bfloat16
