"""What changes a fingerprint of named tensors, and what does not."""

import pytest
import torch

from ewc_hf.storage import fingerprint

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
CHANGES = {
    "name": {"a": TENSORS["a"], "c": TENSORS["b"]},
    "names swapped": {"a": TENSORS["b"], "b": TENSORS["a"]},
    "dtype": {**TENSORS, "a": TENSORS["a"].double()},
    "dtype of the same bytes": {**TENSORS, "a": TENSORS["a"].view(torch.int32)},
    "shape": {**TENSORS, "a": TENSORS["a"].reshape(3, 2)},
    "value": {**TENSORS, "a": TENSORS["a"].nextafter(torch.tensor(9.0))},
    "one more": {**TENSORS, "c": torch.zeros(0)},
    "one fewer": {"a": TENSORS["a"]},
}


@pytest.mark.parametrize("changed", [pytest.param(change, id=name) for name, change in CHANGES.items()])
def test_fingerprint_sees(changed):
    assert fingerprint(changed) != fingerprint(TENSORS)


SAME = {
    "order": dict(reversed(TENSORS.items())),
    "memory": {**TENSORS, "a": TENSORS["a"].T.contiguous().T},
    "autograd": {**TENSORS, "a": TENSORS["a"].clone().requires_grad_(True)},
}


@pytest.mark.parametrize("same", [pytest.param(same, id=name) for name, same in SAME.items()])
def test_fingerprint_does_not_see(same):
    assert fingerprint(same) == fingerprint(TENSORS)
