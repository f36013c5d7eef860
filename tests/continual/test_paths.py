"""Where a second task leads, over lambda: what explodes, what holds, and who takes the norm of the gradient."""

import math
from functools import partial

import pytest
import torch
from one_after_another import LESSONS, NUM_EXAMPLES, perceptron, small_tasks

from ewc_hf.continual import (
    Form,
    Lessons,
    Protection,
    Row,
    Stack,
    follow_paths,
    learn_in_turn,
    measured_accuracy,
)
from ewc_hf.continual.learning import batches_of, loss_of
from ewc_hf.importance import Method

LAMBDAS = [1e-3, 1e2, 1e8]
SGD, ADAM = partial(torch.optim.SGD, lr=0.05), partial(torch.optim.Adam, lr=1e-2)


def learned_one(method=Method.FISHER):
    """A network that has learned the first task, and what it has to remember."""
    stack, known = Stack([perceptron(0)]), Protection(Row(method, Form.PLAIN), [1.0], NUM_EXAMPLES)
    learn_in_turn(stack, small_tasks(1), known, LESSONS, [0])
    known.remember(stack, small_tasks(1)[0])
    return stack, known


def follow(form, make=SGD, lambdas=LAMBDAS, lessons=LESSONS, max_grad_norm=None):
    row = Row(Method.FISHER, form)
    return follow_paths(*learned_one(), small_tasks(2), row, lambdas, lessons, make, max_grad_norm)


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
    one_step = Lessons(epochs=1, batch_size=30, learning_rate=1e-2)
    ends = follow(Form.PLAIN, SGD, [1e-3, 1e3], one_step, max_grad_norm=1e-3)
    weights = sum(p.numel() for p in perceptron(0).parameters())
    for end in ends:
        assert end.farthest == pytest.approx(0.05 * 1e-3 / math.sqrt(weights), rel=1e-6)


def test_what_is_learned_is_left_as_it_is():
    stack, known = learned_one()
    before = [p.detach().clone() for p in stack.parameters()]
    omega = {name: tensor.clone() for name, tensor in known.consolidation.importance.items()}
    follow_paths(stack, known, small_tasks(2), Row(Method.FISHER, Form.PLAIN), [1.0, 2.0], LESSONS, ADAM)
    assert all(torch.equal(p, q) for p, q in zip(stack.parameters(), before, strict=True))
    assert all(torch.equal(tensor, omega[name]) for name, tensor in known.consolidation.importance.items())


def test_equal_to_learning_in_turn():
    """The second task as any grid learns it, with a fresh optimizer."""
    (end,) = follow(Form.STABILIZED, ADAM, [40.0])
    stack, known = learned_one()
    known = known.repeated(Row(Method.FISHER, Form.STABILIZED), [40.0])
    first, second = small_tasks(2)
    optimizer = ADAM(list(stack.parameters()))
    with known.while_learning(stack, optimizer) as steps:
        for pixels, labels in batches_of(second, LESSONS, [0], 1):
            optimizer.zero_grad()
            loss_of(stack, pixels, labels).backward()
            steps.before()
            optimizer.step()
    assert end.old_accuracy == float(measured_accuracy(stack, first))
    assert end.new_accuracy == float(measured_accuracy(stack, second))
