"""Memory and traffic, against the bytes of real runs."""

from dataclasses import replace

import pytest
from conftest import consolidation_of, gpt2
from planned_models import SIZES
from transformers import TrainerCallback

from ewc_hf import EWCConfig, EWCTrainer
from ewc_hf.config import StateDtype
from ewc_hf.plan import Engine, TrainingPrecision, buffers, model_sizes, plan

MEASURED = (
    # Steps of 4 tokens on CPUs (FSDP2's 8 ranks faked), without a penalty: in bytes a parameter, the most that live
    # storages took, and what one step all-reduced, all-gathered and reduce-scattered. DeepSpeed's bucket is as given.
    ("one_gpu", "bf16", 1, "tied", 0, 16.42, 0, 0, 0),
    ("one_gpu", "bf16", 1, "untied", 0, 16.0, 0, 0, 0),
    ("one_gpu", "float32", 1, "untied", 0, 16.0, 0, 0, 0),
    ("ddp", "bf16", 2, "tied", 0, 20.42, 4, 0, 0),
    ("ddp", "float32", 2, "untied", 0, 20.0, 4, 0, 0),
    ("fsdp2", "bf16", 8, "tied", 0, 3.31, 0, 3.893, 2),
    ("fsdp2", "bf16", 8, "untied", 0, 2.88, 0, 3.771, 2),
    ("fsdp2", "float32", 8, "tied", 0, 4.79, 0, 7.787, 4),
    ("fsdp2", "float32", 8, "untied", 0, 3.89, 0, 7.543, 4),
    ("zero1", "bf16", 2, "tied", 1_000_000, 12.05, 2, 2, 0),
    ("zero1", "bf16", 2, "untied", 6_000_000, 12.61, 2, 2, 0),
    ("zero1", "float32", 2, "untied", 1_000_000, 16.07, 4, 4, 0),
    ("zero1", "float32", 2, "tied", 6_000_000, 19.21, 4, 4, 0),
    ("zero2", "bf16", 4, "tied", 1_000_000, 7.0, 2, 2, 0),
    ("zero2", "bf16", 4, "untied", 6_000_000, 9.61, 2, 2, 0),
    ("zero2", "float32", 4, "untied", 1_000_000, 9.36, 4, 4, 0),
    ("zero2", "float32", 4, "tied", 6_000_000, 15.79, 4, 4, 0),
    ("zero3", "bf16", 2, "tied", 6_000_000, 14.5, 0, 2, 2),
    ("zero3", "bf16", 4, "untied", 6_000_000, 10.84, 0, 2, 2),
    ("zero3", "float32", 2, "untied", 6_000_000, 23.68, 0, 4, 4),
    ("zero3", "float32", 4, "tied", 6_000_000, 18.01, 0, 4, 4),
)


def planned(engine="one_gpu", gpus=1, precision="bf16", sizes=SIZES["tied"], state_dtype="float32", offload=False):
    return plan(sizes, Engine(engine), gpus, TrainingPrecision(precision), StateDtype(state_dtype), offload)


@pytest.mark.parametrize(
    ("engine", "precision", "gpus", "model", "bucket", "peak", "reduced", "gathered", "scattered"), MEASURED
)
def test_it_covers_what_was_measured(
    monkeypatch, engine, precision, gpus, model, bucket, peak, reduced, gathered, scattered
):
    monkeypatch.setattr(buffers, "BUCKET", bucket)
    sizes = SIZES[model]
    result = planned(engine, gpus, precision, sizes)
    held = result.total - result.importance - result.anchor
    assert 0.97 < held / sizes.total / peak < 1.13
    sent = (2 * reduced + gathered + scattered) * (gpus - 1) / gpus
    assert result.sent / sizes.total == pytest.approx(sent, rel=1e-3)


@pytest.mark.parametrize(
    ("live", "gathered"), [(500_000, 8_657_408), (1_000_000, 8_198_144), (2_000_000, 7_214_336), (10**9, 4_590_848)]
)
def test_zero3_gathers_once_what_it_keeps_live(monkeypatch, live, gathered):
    """How many numbers one step gathered was counted in DeepSpeed, with this `stage3_max_live_parameters`."""
    monkeypatch.setattr("ewc_hf.plan.per_gpu.LIVE", live)
    sizes, width, ring = SIZES["untied"], 2, 1 / 2
    assert planned("zero3", 2, "bf16", sizes).sent == pytest.approx(ring * width * (gathered + sizes.total), rel=0.01)


def test_autocast_keeps_copies_until_backward():
    """After the forward 2.09 bytes a parameter more were live than before it, 0.09 of them activations."""
    assert planned().buffers / SIZES["tied"].total == pytest.approx(2.09 - 0.09, rel=0.01)
    assert planned(precision="float32").buffers == 0


def test_zero3_steps_a_sub_group_at_a_time():
    """A step of the whole part, in two bytes and then in four, took 3.0 bytes a parameter on 2 GPUs: 6 P/N."""
    p, part = 10 * 10**9, 10**9
    assert buffers.zero3_buffers(p, part, w=2) == 2 * 5 * 10**8 + 6 * part
    assert buffers.zero3_buffers(p, 5 * part, w=2) == 2 * 5 * 10**8 + 6 * 10**9


class Weigh(TrainerCallback):
    """Counts the bytes that a run holds when its optimizer steps."""

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.held = {"gradients": size_of(p.grad for p in model.parameters())}

    def on_optimizer_step(self, args, state, control, model, optimizer, **kwargs):
        moments = (t for state in optimizer.state.values() for t in state.values() if t.ndim > 0)
        self.held |= {"weights": size_of(model.parameters()), "optimizer": size_of(moments)}
        (term,) = self.trainer._penalty._terms
        self.held["importance"] = size_of(term.importance.values())
        self.held["anchor"] = size_of(term.anchor.values())


def size_of(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16"])
def test_a_run_on_one_device_holds_what_is_planned(tmp_path, state_dtype):
    """The checkpoint is a bfloat16 one, loaded in float32; other engines' shares are in `test_distributed.py`."""
    model = gpt2().bfloat16().float()
    weigh = Weigh()
    args = EWCConfig(
        str(tmp_path), max_steps=1, bf16=True, use_cpu=True, report_to="none", save_strategy="no",
        dataloader_pin_memory=False, disable_tqdm=True, ewc_state_dtype=state_dtype,
    )  # fmt: skip
    weigh.trainer = EWCTrainer(
        model=model,
        args=args,
        consolidation=consolidation_of(model),
        train_dataset=[{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}] * 8,
        callbacks=[weigh],
    )
    weigh.trainer.train()
    result = planned(sizes=replace(model_sizes(model.config), stored_in_bfloat16=True), state_dtype=state_dtype)
    assert weigh.held == {name: getattr(result, name) for name in weigh.held}
    as_the_optimizer = weigh.held["importance"] + weigh.held["anchor"] == weigh.held["optimizer"]
    assert as_the_optimizer == (state_dtype == "float32")


@pytest.mark.parametrize("engine", list(Engine))
def test_an_offloaded_penalty_takes_nothing_of_the_gpu(engine):
    gpus = 1 if engine == "one_gpu" else 8
    result, without = planned(engine, gpus), planned(engine, gpus, offload=True)
    assert without.importance == without.anchor == 0
    assert result.total - without.total == result.importance + result.anchor > 0


def test_bfloat16_halves_the_importance_and_the_anchor_of_a_bfloat16_checkpoint():
    for stored in (False, True):
        sizes = replace(SIZES["tied"], stored_in_bfloat16=stored)
        narrow, wide = (planned("fsdp2", 4, sizes=sizes, state_dtype=name) for name in ("bfloat16", "float32"))
        assert wide.importance == wide.anchor == 2 * narrow.importance
        assert narrow.anchor == (narrow.importance if stored else wide.anchor)


@pytest.mark.parametrize(
    ("gpus", "engine", "message"),
    [
        (0, "one_gpu", "expected 1 or more GPUs for 'one_gpu', got 0"),
        (1, "ddp", "expected 2 or more GPUs for 'ddp', got 1"),
        (-2, "zero3", "expected 2 or more GPUs for 'zero3', got -2"),
    ],
)
def test_too_few_gpus_are_refused(gpus, engine, message):
    with pytest.raises(ValueError, match=message):
        planned(engine, gpus)
