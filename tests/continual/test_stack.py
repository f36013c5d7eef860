"""Networks in a stack go the way that each goes alone."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from ewc_hf.continual import ConvNet, Perceptron, Stack

BUILDS = {
    "perceptron": (lambda: Perceptron((64, 20, 12, 5)), 8),
    "convolutions": (lambda: ConvNet(12, (3, 4, 5), num_classes=5), 12),
    "large pictures": (lambda: ConvNet(28, (2, 3, 2), num_classes=5), 28),
}


def stacked(name, number=3):
    build, side = BUILDS[name]
    networks = []
    for seed in range(number):
        torch.manual_seed(seed)
        networks.append(build().double())
    pixels = torch.rand(number, 6, side, side, dtype=torch.float64)
    return networks, Stack(networks), pixels, torch.randint(5, (number, 6))


@pytest.mark.parametrize("name", BUILDS)
def test_equal_to_separate_networks(name):
    """SGD, since Adam amplifies the round-off of biases before a batch normalization, whose gradient is zero."""
    networks, stack, pixels, labels = stacked(name)
    together = torch.optim.SGD(stack.parameters(), lr=0.1)
    alone = [torch.optim.SGD(network.parameters(), lr=0.1) for network in networks]
    for _ in range(4):
        together.zero_grad()
        cross_entropy(stack(pixels).flatten(0, 1), labels.flatten(), reduction="sum").div(6).backward()
        together.step()
        for network, optimizer, own, numbers in zip(networks, alone, pixels, labels, strict=True):
            optimizer.zero_grad()
            cross_entropy(network(own), numbers).backward()
            optimizer.step()
    for index, network in enumerate(networks):
        got, expected = stack.member(index).state_dict(), network.state_dict()
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(got[key], value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", BUILDS)
def test_modes_and_names(name):
    networks, stack, pixels, _ = stacked(name)
    assert len(stack) == 3
    assert [name for name, _ in stack.network.named_parameters()] == [
        name for name, _ in networks[0].named_parameters()
    ]
    stack.eval()
    for index, network in enumerate(networks):
        member = stack.member(index)
        assert not member.training
        torch.testing.assert_close(stack(pixels)[index], network.eval()(pixels[index]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(member(pixels[index]), network(pixels[index]), rtol=0, atol=0)


def test_copies():
    """Neither the networks that it was made of nor its members are tied to it."""
    networks, stack, _, _ = stacked("perceptron")
    member = stack.member(1)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
    assert all(parameter.abs().sum() > 0 for parameter in (*networks[0].parameters(), *member.parameters()))
