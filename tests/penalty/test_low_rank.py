"""The term in adapters, against autograd on the merged change that PEFT computes, and against slow solvers."""

import pytest
import torch
from adapted_models import ALPHA, LAMBDA, LINEAR, adapted, llama, penalty_of
from largest_tensor import LargestTensor
from peft import LoraConfig
from small_runs import LR, arguments, examples, small_model, spread_consolidation, weights
from torch import nn, optim

from ewc_hf import Coupling, EWCTrainer, estimate_importance
from ewc_hf.engines import LocalParameters, adapted_matrices
from ewc_hf.penalty import Diagonal, LowRank, coupling_of, require_matching_model
from ewc_hf.penalty.low_rank import low_rank_value_reference

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it


CASES = {
    "Conv1D": (small_model, {}),
    "Linear": (llama, {"target_modules": LINEAR}),
    "rank 1": (llama, {"target_modules": LINEAR, "r": 1, "lora_alpha": 5}),
    "rank 8, rsLoRA": (small_model, {"r": 8, "use_rslora": True, "lora_alpha": 3}),
    "an embedding": (llama, {"target_modules": ["embed_tokens"]}),
    "copies of modules": (small_model, {"modules_to_save": ["ln_f"]}),
    "some of the layers": (llama, {"target_modules": ["v_proj"]}),
}


def written_formula(model, consolidation, alpha):
    """Of changes that PEFT computes, and of weights that are trained themselves."""
    value = torch.zeros((), dtype=torch.float64)
    inner = model.base_model.model
    for name, omega in consolidation.importance.items():
        place = inner.get_submodule(name.rpartition(".")[0])
        if hasattr(place, "active_adapters") and hasattr(place, "get_delta_weight"):
            if not name.endswith("weight"):
                continue
            active = [adapter for adapter in place.active_adapters if adapter in place.scaling]
            change = sum(place.get_delta_weight(adapter) for adapter in active)
        elif hasattr(place, "modules_to_save"):
            change = dict(place.modules_to_save.default.named_parameters())[name.rpartition(".")[2]]
            change = change - consolidation.anchor[name]
        else:
            continue
        value = value + (LAMBDA / 2 * omega / (1 + alpha * LAMBDA * omega) * change**2).sum()
    return value


@pytest.mark.parametrize("alpha", [0.0, ALPHA])
@pytest.mark.parametrize(("build", "options"), CASES.values(), ids=CASES.keys())
def test_value_and_gradient_are_those_of_autograd_on_the_written_formula(build, options, alpha):
    consolidation = spread_consolidation(build())
    model = adapted(build(), **options)
    expected = written_formula(model, consolidation, alpha)
    gradients = torch.autograd.grad(expected, [p for p in model.parameters() if p.requires_grad])
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.5) if p.requires_grad else None
    penalty = penalty_of(model, consolidation, alpha=alpha)
    assert penalty.values()["ewc_penalty"] == pytest.approx(expected.item(), rel=1e-10)
    penalty.add_gradient()
    trained = [p for p in model.parameters() if p.requires_grad]
    for p, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(p.grad - 0.5, gradient, rtol=1e-10, atol=1e-10)


def test_several_adapters_add_up():
    consolidation, model = spread_consolidation(llama()), adapted(llama(), target_modules=LINEAR)
    model.add_adapter("second", LoraConfig(r=2, lora_alpha=7, target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "second"])
    for name, p in model.double().named_parameters():
        if "second" in name:
            p.data = torch.randn(p.shape, dtype=torch.float64)
    expected = written_formula(model, consolidation, ALPHA)
    assert penalty_of(model, consolidation).values()["ewc_penalty"] == pytest.approx(expected.item(), rel=1e-10)
    assert len(adapted_matrices(model)["model.layers.0.self_attn.q_proj.weight"].adapters) == 2


def test_the_formula_of_one_adapter():
    consolidation, model = spread_consolidation(llama()), adapted(llama(), target_modules=["q_proj"])
    ((name, matrix),) = adapted_matrices(model).items()
    (adapter,) = matrix.adapters
    value = low_rank_value_reference(
        adapter.a, adapter.b, adapter.scale, consolidation.importance[name], LAMBDA, ALPHA
    )
    assert penalty_of(model, consolidation).values()["ewc_penalty"] == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize("blocks", [1, 3, 10**6])
def test_blocks_of_rows_change_nothing(monkeypatch, blocks):
    consolidation, model = spread_consolidation(small_model()), adapted(small_model())
    whole = penalty_of(model, consolidation).values()["ewc_penalty"]
    monkeypatch.setattr("ewc_hf.penalty.low_rank._BLOCK", blocks)
    assert penalty_of(model, consolidation).values()["ewc_penalty"] == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("offload", [False, True])
def test_a_trainer_holds_a_model_that_adapters_tune(tmp_path, offload):
    consolidation = estimate_importance(small_model(), examples(), num_examples=12, progress=False)
    changes = []
    for ewc_lambda in (0, 1e4):
        torch.manual_seed(1)
        model = adapted(small_model(), drawn=False, modules_to_save=["ln_f"])
        args = arguments(tmp_path, ewc_lambda=ewc_lambda, ewc_offload=offload, max_steps=20, learning_rate=0.05)
        trainer = EWCTrainer(model=model, args=args, consolidation=consolidation, train_dataset=examples(40))
        before = weights(model)
        trainer.train()
        assert all(not torch.equal(p, before[name]) for name, p in weights(model).items())
        matrices = adapted_matrices(model)
        changes.append(
            sum(
                (consolidation.importance[name] * (m.change(slice(None), torch.float64).T) ** 2).sum().item()
                for name, m in matrices.items()
            )
        )
        logged = [log["ewc_predicted_forgetting"] for log in trainer.state.log_history if "ewc_penalty" in log]
        assert bool(logged) == (ewc_lambda > 0)
    assert changes[1] < changes[0] / 2
    assert logged[-1] >= changes[1] / 2, "and what is trained itself"


def test_base_weights_that_are_trained_beside_adapters_are_protected_as_they_are():
    model = adapted(small_model(), drawn=False, bias="all")
    protected = require_matching_model(spread_consolidation(small_model()), model)
    assert "transformer.h.0.attn.c_attn.bias" in protected
    assert "transformer.h.0.attn.c_attn.lora_B.default.weight" in protected


def test_an_estimate_on_a_fresh_adapter_names_the_cure():
    with pytest.raises(
        ValueError, match=r"expected trained adapters, got '.*lora_B.* of zeros.*estimate on the model"
    ):
        estimate_importance(adapted(small_model(), drawn=False), examples(), progress=False)
    assert estimate_importance(adapted(small_model()), examples(), num_examples=4, progress=False).importance


def test_of_the_importance_only_that_of_adapted_matrices_is_held():
    consolidation, model = spread_consolidation(small_model()), adapted(small_model(), drawn=False)
    parameters = LocalParameters(model, optim.SGD(model.parameters(), lr=LR))
    term, diagonal = (
        LowRank(consolidation, adapted_matrices(model), parameters, bfloat16=True),
        Diagonal(consolidation, parameters),
    )
    assert not diagonal.names and {type(p) for p in model.parameters()} == {nn.Parameter}
    held = sum(omega.numel() for omega in term._importance.values())
    assert held == sum(
        omega.numel() for name, omega in consolidation.importance.items() if name in adapted_matrices(model)
    )
    assert {omega.dtype for omega in term._importance.values()} == {torch.bfloat16}


def test_no_change_of_a_weight_is_ever_whole(monkeypatch):
    """Nothing is larger than a block or what is made of an adapter, for the value and the gradient."""
    monkeypatch.setattr("ewc_hf.penalty.low_rank._BLOCK", 32)
    consolidation, model = spread_consolidation(small_model()), adapted(small_model(), r=2)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LR)
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    matrices = adapted_matrices(model).values()
    products = max(2 * max(matrix.shape) for matrix in matrices)  # an adapter's gradient, of rank 2
    assert products < max(matrix.shape.numel() for matrix in matrices)
    penalty = penalty_of(model, consolidation, optimizer=optimizer)
    with LargestTensor(torch.float64) as largest:
        penalty.values()
        penalty.add_gradient()
    assert 0 < largest.numel <= products


def test_a_proximal_step_of_adapters_is_refused(tmp_path):
    model, consolidation = adapted(small_model(), drawn=False), spread_consolidation(small_model())
    args = arguments(tmp_path, ewc_coupling="decoupled")
    with pytest.raises(ValueError, match="expected ewc_coupling='loss' on low-rank adapters, got 'decoupled'"):
        EWCTrainer(model=model, args=args, consolidation=consolidation, train_dataset=examples())
    with pytest.raises(TypeError, match="expected terms with a proximal step for 'decoupled', got LowRank"):
        penalty_of(model, consolidation, Coupling.DECOUPLED)


def test_by_default_adapters_have_the_coupling_loss_and_whole_weights_the_other():
    assert coupling_of(None, adapted(small_model())) is coupling_of("loss", adapted(small_model())) is Coupling.LOSS
    assert coupling_of(None, small_model()) is Coupling.DECOUPLED
    assert coupling_of("loss", small_model()) is Coupling.LOSS
