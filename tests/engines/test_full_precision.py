"""Mixed precision is off for a while, however a model got it, and then is as it was."""

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny import tiny_gpt2
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from ewc_hf.engines import in_full_precision

IDS = torch.tensor([[1, 2, 3]])


@pytest.fixture
def accelerators():
    """Makes one of mixed precision after another, and leaves none behind."""
    AcceleratorState._reset_state(True)
    yield lambda: Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(True)


@pytest.fixture
def one_process(tmp_path):
    """A group of one process, in which a model can be replicated."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def patched(model):
    """As libraries do that replace a model's forward."""
    own = model.forward
    model.forward = lambda **inputs: own(**inputs)
    return model


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("build", [tiny_gpt2, lambda: patched(tiny_gpt2())], ids=["method", "function"])
def test_accelerates_autocast_is_taken_off_and_put_back(accelerators, build, times):
    model = build().eval()
    expected = model(input_ids=IDS).logits
    for _ in range(times):
        accelerators().prepare_model(model, evaluation_mode=True)
        del model._is_accelerate_prepared
    wrapped, widened = model.forward, model(input_ids=IDS).logits
    assert widened.dtype == torch.float32 and not torch.equal(widened, expected)
    with in_full_precision(model):
        assert torch.equal(model(input_ids=IDS).logits, expected)
    assert model.forward == wrapped
    with pytest.raises(ZeroDivisionError), in_full_precision(model):
        raise ZeroDivisionError
    assert model.forward == wrapped


def test_autocast_inside_a_replicated_model_is_taken_off(accelerators, one_process):
    model = tiny_gpt2().eval()
    expected = model(input_ids=IDS).logits
    replica = DistributedDataParallel(accelerators().prepare_model(model, evaluation_mode=True))
    with in_full_precision(replica):
        assert torch.equal(replica(input_ids=IDS).logits, expected)


def test_autocast_around_the_call_is_off():
    model = tiny_gpt2()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(input_ids=IDS).logits.dtype == torch.bfloat16
        with in_full_precision(model):
            assert model(input_ids=IDS).logits.dtype == torch.float32


def sharded(model):
    """Each layer and the rest, in mixed precision."""
    half = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.bfloat16, output_dtype=torch.bfloat16)
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.transformer.h:
        fully_shard(layer, mesh=mesh, mp_policy=half)
    return fully_shard(model, mesh=mesh, mp_policy=half)


def logits_and_gradients(model):
    """Of a step in mixed precision."""
    logits = model(input_ids=IDS).logits
    logits.float().square().sum().backward()
    gradients = [p.grad.full_tensor() for p in model.parameters()]
    model.zero_grad()
    return [logits.detach(), *gradients]


@pytest.mark.parametrize("steps", [0, 1])
def test_mixed_precision_of_a_sharded_model_is_off_and_then_as_it_was(one_process, steps):
    expected = tiny_gpt2().eval()(input_ids=IDS).logits
    model, untouched = sharded(tiny_gpt2().eval()), sharded(tiny_gpt2().eval())
    for _ in range(steps):
        logits_and_gradients(model)
    with torch.no_grad(), in_full_precision(model):
        assert torch.equal(model(input_ids=IDS).logits, expected)
    for got, wanted in zip(logits_and_gradients(model), logits_and_gradients(untouched), strict=True):
        assert got.dtype == wanted.dtype and torch.equal(got, wanted)
    assert logits_and_gradients(model)[0].dtype == torch.bfloat16
