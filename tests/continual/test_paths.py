"""Where a second task leads, over lambda: what explodes, what holds, and who takes the norm of the gradient."""

import math
from functools import partial

import pytest
import torch
from one_after_another import LESSONS, perceptron, small_tasks

from ewc_hf.continual import Form, Lessons, Row, follow_paths
from ewc_hf.importance import Method

LAMBDAS = [1e-3, 1e2, 1e8]
SGD, ADAM = partial(torch.optim.SGD, lr=0.05), partial(torch.optim.Adam, lr=1e-2)


def follow(form, make=SGD, lambdas=LAMBDAS, lessons=LESSONS, max_grad_norm=None):
    row = Row(Method.FISHER, form)
    return follow_paths(perceptron(0), small_tasks(2), row, lambdas, lessons, make, max_grad_norm)


def test_what_explodes():
    """Plain EWC, where `alpha lambda Omega > 2` somewhere; nothing else, at any lambda."""
    plain, stabilized, decoupled = (follow(form) for form in Form)
    assert plain[0].farthest < 1
    assert plain[2].farthest > 1e3
    for ends in (stabilized, decoupled):
        assert all(end.farthest < 1 for end in ends)
        assert ends[2].farthest < ends[0].farthest
    assert [end.ewc_lambda for end in plain] == LAMBDAS


def test_saturated_weights():
    """`alpha lambda Omega > 1` nowhere, and nearly everywhere."""
    ends = follow(Form.STABILIZED, lambdas=[1e-9, 1e15])
    assert (ends[0].saturated, ends[0].norm_share) == (0.0, 0.0)
    assert ends[1].saturated > 0.5
    assert ends[1].norm_share == pytest.approx(1, abs=0.05)


def test_alpha_is_the_optimizer_s():
    """A hundred times the learning rate saturates as a hundred times the lambda does."""
    slow = follow(Form.STABILIZED, partial(torch.optim.SGD, lr=1e-4), [1e6, 1e8])
    fast = follow(Form.STABILIZED, partial(torch.optim.SGD, lr=1e-2), [1e4, 1e6])
    assert [end.saturated for end in slow] == [end.saturated for end in fast]
    assert 0 < slow[0].saturated < slow[1].saturated


def test_clipping():
    """One step of SGD moves by the learning rate times the norm that is left, whatever lambda."""
    one_step = Lessons(epochs=1, batch_size=30, learning_rate=1e-2, importance_examples=12)
    ends = follow(Form.PLAIN, SGD, [1e-3, 1e3], one_step, max_grad_norm=1e-3)
    weights = sum(p.numel() for p in perceptron(0).parameters())
    for end in ends:
        assert end.farthest == pytest.approx(0.05 * 1e-3 / math.sqrt(weights), rel=1e-6)


def test_networks_are_left_as_they_are():
    network = perceptron(0)
    before = [p.detach().clone() for p in network.parameters()]
    follow_paths(network, small_tasks(2), Row(Method.MAS, Form.PLAIN), [1.0], LESSONS, ADAM)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))
