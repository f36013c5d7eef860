"""Runs in a stack against the slow twin, which runs one network with the penalty in autograd."""

import math

import pytest
import torch
from one_after_another import LESSONS, NUM_EXAMPLES, learned, perceptron, small_tasks

from ewc_hf.continual import Lessons, Protection, Stack, learn_in_turn, measured_accuracy, parse_rows

SEEDS = [0, 1, 0]


def run(specification, lambdas, seeds=SEEDS, tasks=None):
    """Return the trained stack, and the accuracies [k][j] of each network, as far as they are known."""
    row = None if specification is None else next(iter(parse_rows([f"{specification}:1"])))
    stack = Stack([perceptron(seed) for seed in seeds])
    accuracy = learn_in_turn(stack, tasks or small_tasks(), Protection(row, lambdas, NUM_EXAMPLES), LESSONS, seeds)
    return stack, [[[a for a in after if not math.isnan(a)] for after in own] for own in accuracy.tolist()]


@pytest.mark.parametrize("form", ["plain", "stabilized", "decoupled"])
@pytest.mark.parametrize("method", ["fisher", "mas", "synaptic", "signal"])
def test_equal_to_the_paper_s_protocol(method, form):
    """Several lambdas and seeds in one stack; each network as if it had been alone."""
    lambdas = [3.0, 0.7, 40.0]
    stack, accuracies = run(f"{method}:{form}", lambdas)
    for index, (seed, ewc_lambda) in enumerate(zip(SEEDS, lambdas, strict=True)):
        twin = perceptron(seed)
        expected = learned(twin, small_tasks(), LESSONS, seed, method, form, ewc_lambda)
        for (name, got), value in zip(stack.member(index).named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(got, value, rtol=1e-7, atol=1e-8, msg=f"{name} of {index}")
        for got, known in zip(accuracies[index], expected, strict=True):
            assert got == pytest.approx(known, abs=1e-6)


def test_unprotected():
    """Lambda 0 is the same with and without a row."""
    stack, _ = run(None, [0.0, 0.0], [0, 1])
    twin = perceptron(1)
    learned(twin, small_tasks(), LESSONS, 1)
    for got, value in zip(stack.member(1).parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(got, value, rtol=1e-8, atol=1e-9)
    other, _ = run("fisher:plain", [0.0, 0.0], [0, 1])
    for one, two in zip(stack.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)


def test_hooks_are_removed():
    """A protection leaves nothing on the optimizer, also where learning fails."""
    stack, (row,) = Stack([perceptron(0)]), parse_rows(["synaptic:decoupled:1"])
    optimizer = torch.optim.Adam(stack.parameters())
    protection = Protection(row, [1.0])
    with pytest.raises(RuntimeError, match="stop"), protection.while_learning(stack, optimizer):
        raise RuntimeError("stop")
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_accuracy_of_known_networks():
    (task,) = small_tasks(1)
    stack = Stack([perceptron(0), perceptron(1)])
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
        stack.network[-1].bias[0, 2] = 1.0  # the first tells every picture the third class, the second the first
    assert measured_accuracy(stack, task).tolist() == pytest.approx([6 / 20, 7 / 20])


def test_a_network_that_diverged():
    """Named by its lambda, before the others' importance is lost with it."""
    (row,) = parse_rows(["fisher:plain:1"])
    stack, (task,) = Stack([perceptron(seed) for seed in (0, 1, 2)]), small_tasks(1)
    with torch.no_grad():
        next(iter(stack.parameters()))[1, 0, 0] = math.inf
    with pytest.raises(ValueError, match=r"got others at lambda 7.5 of 'fisher:plain'; leave these lambdas out"):
        Protection(row, [1.0, 7.5, 2.0], NUM_EXAMPLES).remember(stack, task)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_lessons(options):
    with pytest.raises(ValueError, match="expected epochs, batch size and learning rate > 0"):
        Lessons(**options)
