"""One safetensors file, against the library's own writer and reader."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from ewc_hf.engines import sharding
from ewc_hf.storage.tensor_file import StoredTensor, open_safetensors, sha256, write_tensor_file


@pytest.fixture
def tensors():
    draws = torch.Generator().manual_seed(0)
    return {
        "z": torch.randn(4, 3, generator=draws),
        "a é": torch.randn(5, generator=draws, dtype=torch.float64),
        "half": torch.randn(7, 2, generator=draws).bfloat16(),
        "scalar": torch.tensor(2.5),
        "turned": torch.randn(3, 4, generator=draws).T,
        "none": torch.empty(0, 3),
        "sixteen": torch.randn(3, generator=draws).half(),
    }


@pytest.mark.parametrize("elements", [3, 1 << 24])
def test_the_bytes_are_those_that_the_library_writes(tmp_path, tensors, monkeypatch, elements):
    monkeypatch.setattr(sharding, "_BLOCK_ELEMENTS", elements)
    digest = write_tensor_file(tmp_path / "ours", tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "theirs", metadata={"format": "pt"})
    ours = (tmp_path / "ours").read_bytes()
    assert ours == (tmp_path / "theirs").read_bytes()
    assert digest == sha256(tmp_path / "ours") == hashlib.sha256(ours).hexdigest()


def test_rows_are_read_without_the_others_and_outlive_the_file(tmp_path, tensors):
    path = tmp_path / "file"
    write_tensor_file(path, tensors)
    with open_safetensors(path) as file:
        stored = {name: StoredTensor.find(path, file, name) for name in tensors}
    read = {name: tensor[...] for name, tensor in stored.items()}
    rows = stored["z"][1:3]
    path.write_bytes(b"")
    for name, tensor in tensors.items():
        assert (stored[name].shape, stored[name].dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(read[name], tensor)
    assert torch.equal(rows, tensors["z"][1:3])


def test_integers_are_refused(tmp_path):
    save_file({"a": torch.arange(3)}, tmp_path / "file")
    with open_safetensors(tmp_path / "file") as file, pytest.raises(ValueError, match=r"expected 'a' in .* got I64"):
        StoredTensor.find(tmp_path / "file", file, "a")


def test_without_a_path_nothing_is_written(tensors):
    assert write_tensor_file(None, tensors) == hashlib.sha256().hexdigest()
