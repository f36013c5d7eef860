"""Other libraries' ways to the diagonal empirical Fisher information of a GPT-2, to be timed against ours.

Each factory of `PEERS` prepares once, leaving the model as it is, and returns a function of token ids [B, T] that maps
every parameter it covers to

    sum_{b=1}^{B} (d log p(tokens of example b) / d w_i)^2,      log p summed over the example's T-1 predicted tokens

by the names and in the shapes of `GPT2LMHeadModel.named_parameters()`. A factory raises ImportError where its library
is not installed. `kronfluence` and `backpack` miss some parameters, and take the tied embedding for two separate
weights: `transformer.wte.weight` as input and `lm_head.weight` as output. Their results are exact for `untied(model)`;
the tied weight's own value, the square of a sum, cannot be had from the two.

Not here: curvlinops 3, whose `EFLinearOperator` counts each token as an example of its own and offers matrix products,
from which a diagonal is only estimated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.pytorch_utils import Conv1D

Contender = Callable[[Tensor], dict[str, Tensor]]
"""Maps token ids [B, T] to the sum of squared per-example gradients by parameter name."""


def untied(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return a copy of the model whose output embedding is a parameter of its own, `lm_head.weight`."""
    twin = copy.deepcopy(model)
    twin.config.tie_word_embeddings = False
    twin.lm_head.weight = nn.Parameter(twin.lm_head.weight.detach().clone())
    return twin


def with_linear_layers(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return a copy of the model with each Conv1D, which the libraries have no rule for, as the equivalent Linear."""
    twin = copy.deepcopy(model)
    for name, conv in [(name, module) for name, module in twin.named_modules() if isinstance(module, Conv1D)]:
        linear = nn.utils.skip_init(nn.Linear, conv.nx, conv.nf, device=conv.weight.device, dtype=conv.weight.dtype)
        linear.weight.data.copy_(conv.weight.data.T)
        linear.bias.data.copy_(conv.bias.data)
        twin.set_submodule(name, linear.train(conv.training))
    return twin


def in_conv1d_layout(statistic: dict[str, Tensor]) -> dict[str, Tensor]:
    """Transpose back what `with_linear_layers` transposed: every matrix inside a block."""
    return {name: s.T if name.startswith("transformer.h.") and s.ndim == 2 else s for name, s in statistic.items()}


def batch_nll(model: Callable[..., CausalLMOutputWithCrossAttentions], ids_BT: Tensor) -> Tensor:
    """Return `-log p` summed over the batch's predicted tokens, a scalar."""
    # By default GPT-2 looks positions up once for the whole batch, a row [1, T] that hides whose gradient is whose.
    positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
    logits_BTV = model(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).logits
    return cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="sum")


def torch_func(model: GPT2LMHeadModel, chunk_size: int = 8) -> Contender:
    """PyTorch's own `vmap(grad)`: one vectorized backward pass for `chunk_size` examples at a time.

    Covers all parameters, tied embedding included. Holds `chunk_size` gradients of the whole model at once.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def nll(parameters: dict[str, Tensor], ids_T: Tensor) -> Tensor:
        return batch_nll(lambda **inputs: functional_call(model, parameters, kwargs=inputs), ids_T[None])

    gradients_of = vmap(grad(nll), in_dims=(None, 0))

    def contender(ids_BT: Tensor) -> dict[str, Tensor]:
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for chunk in ids_BT.split(chunk_size):
            for name, gradients in gradients_of(parameters, chunk).items():
                sums[name] += gradients.square_().sum(0)
        return sums

    return contender


def opacus(model: GPT2LMHeadModel) -> Contender:
    """Opacus' GradSampleModule, the engine of its private training: per-example gradients from a rule for each layer.

    Covers all parameters, tied embedding included. Holds B gradients of the whole model at once, and computes the
    batch's gradient beside them.
    """
    from opacus import GradSampleModule

    twin = with_linear_layers(model)
    for module in twin.modules():  # layers in eval mode it passes over; those with parameters act alike in both modes
        module.training = bool(list(module.parameters(recurse=False)))
    wrapped = GradSampleModule(twin, loss_reduction="sum")

    def contender(ids_BT: Tensor) -> dict[str, Tensor]:
        batch_nll(wrapped, ids_BT).backward()
        sums = {name: p.grad_sample.square_().sum(0) for name, p in twin.named_parameters()}
        wrapped.zero_grad(set_to_none=True)
        return in_conv1d_layout(sums)

    return contender


def backpack(model: GPT2LMHeadModel) -> Contender:
    """BackPACK's BatchGrad: per-example gradients of one layer at a time, here squared and let go in its hook.

    Covers Linear (once Conv1D) layers only, `lm_head` untied among them: it has no rule for LayerNorm, and its rule
    for embeddings loops over the vocabulary in Python and makes a tensor [V, B, T]. Computes the batch's gradient
    beside. Its SumGradSquared gives the same numbers but forms the per-example gradients of a layer twice.
    """
    from backpack import backpack as extensions
    from backpack import extend
    from backpack.extensions import BatchGrad

    twin = with_linear_layers(untied(model))
    names = {p: name for name, p in twin.named_parameters()}
    for module in twin.modules():
        if isinstance(module, nn.Linear):
            extend(module)

    def contender(ids_BT: Tensor) -> dict[str, Tensor]:
        sums = {}

        def add_squares(layer: nn.Module) -> None:
            for p in layer.parameters(recurse=False):
                sums[names[p]] = p.grad_batch.square_().sum(0)
                del p.grad_batch

        nll = batch_nll(twin, ids_BT)
        with extensions(BatchGrad(), extension_hook=add_squares):
            nll.backward()
        twin.zero_grad(set_to_none=True)
        return in_conv1d_layout(sums)

    return contender


def kronfluence(model: GPT2LMHeadModel) -> Contender:
    """The Lambda matrices of kronfluence's `diagonal` strategy: per-example gradients of one layer at a time.

    Covers Linear (once Conv1D) layers only, `lm_head` untied among them, and computes no other parameter's gradient.
    """
    from kronfluence.arguments import FactorArguments
    from kronfluence.module.tracked_module import ModuleMode
    from kronfluence.module.utils import load_factors, set_mode, wrap_tracked_modules
    from kronfluence.utils.constants import LAMBDA_MATRIX_NAME

    dtype = model.dtype
    args = FactorArguments("diagonal", use_empirical_fisher=True, per_sample_gradient_dtype=dtype, lambda_dtype=dtype)
    twin = wrap_tracked_modules(with_linear_layers(untied(model)).requires_grad_(False), factor_args=args)

    def contender(ids_BT: Tensor) -> dict[str, Tensor]:
        set_mode(twin, ModuleMode.LAMBDA, release_memory=True)
        batch_nll(twin, ids_BT).backward()
        sums = {}
        for name, factor in load_factors(twin, LAMBDA_MATRIX_NAME, cpu=False).items():
            if name == "lm_head":
                sums[f"{name}.weight"] = factor
            else:  # the bias is the last column
                sums[f"{name}.weight"], sums[f"{name}.bias"] = factor[:, :-1], factor[:, -1]
        return in_conv1d_layout(sums)

    return contender


PEERS: dict[str, Callable[[GPT2LMHeadModel], Contender]] = {
    "torch.func": torch_func,
    "opacus": opacus,
    "backpack": backpack,
    "kronfluence": kronfluence,
}
