"""Slow float64 twins of the package's numbers. They share no code with it: each is written out from its formula.

Shapes: T positions of one example, V vocabulary entries.
"""

import copy
from collections import defaultdict
from itertools import accumulate

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

IGNORED = -100


def fisher(model, examples, labels="ground_truth", seed=0):
    """`sum_examples (d log p(labels) / dw)^2 / number of label tokens`; `examples` in the order they are drawn in."""
    order = {id(example): number for number, example in enumerate(examples)}

    def log_probability(twin, example):
        draws = np.random.default_rng((seed, order[id(example)]))
        logits_TV, targets_T = _logits_and_targets(twin, example)
        log_p_TV = logits_TV - torch.log(torch.exp(logits_TV).sum(-1, keepdim=True))
        chosen_T = _labels(log_p_TV.detach(), targets_T, labels, draws)
        counted = _counted(targets_T)
        return log_p_TV[counted, chosen_T[counted]].sum()

    return _per_token(model, examples, log_probability, lambda gradient: gradient * gradient)


def mas(model, examples, output="probabilities"):
    """`sum_examples |d S / dw| / number of label tokens`, `S` the squared norm over positions that predict a label."""

    def squared_norm(twin, example):
        logits_TV, targets_T = _logits_and_targets(twin, example)
        if output == "probabilities":
            exponential_TV = torch.exp(logits_TV)
            logits_TV = exponential_TV / exponential_TV.sum(-1, keepdim=True)
        return (logits_TV[_counted(targets_T)] ** 2).sum()

    return _per_token(model, examples, squared_norm, lambda gradient: abs(gradient))


def fisher_of(model, examples, num_labels, logits_of):
    """Fisher of any model: `logits_of(twin, example)` gives logits [T, V] and the labels [T] that they predict."""

    def log_probability(twin, example):
        logits_TV, labels_T = logits_of(twin, example)
        log_p_TV = logits_TV - torch.log(torch.exp(logits_TV).sum(-1, keepdim=True))
        return log_p_TV[range(len(labels_T)), labels_T].sum()

    return _per_label(model, examples, log_probability, lambda gradient: gradient * gradient, num_labels)


def signal(model, examples, run):
    """`|W_ij| * mean |input_j|`, and of a bias `mean |output_i|`; `run(twin, example)` gives logits, [1, ..., V]."""
    twin, calls, signals, importance = copy.deepcopy(model).eval(), {}, defaultdict(list), defaultdict(int)
    names = {p: name for name, p in _held(twin).items()}
    for layer in twin.modules():
        if any(p in names for p in layer.parameters(recurse=False)):
            layer.register_forward_hook(lambda layer, x, y: calls.update({layer: (x[0].clone(), y.clone())}))
    for example in examples:
        with torch.no_grad():
            logits = run(twin, example)
        for layer, (x, y) in calls.items():
            last = y.shape == logits.shape and torch.equal(y, logits)
            if type(layer) in (nn.Conv1d, nn.Conv2d, nn.BatchNorm2d):
                x, y = x.movedim(1, -1), y.movedim(1, -1)
            seen = {"weight": _multiplied(layer, x), "bias": torch.softmax(y, -1) if last else y}
            for key, _ in layer.named_parameters(recurse=False):
                signals[layer, key].append(abs(seen[key]).flatten(0, -2))
    shapes = {
        nn.Linear: (1, -1),
        nn.Conv1d: (1, -1, 1),
        nn.Conv2d: (1, -1, 1, 1),
        nn.Embedding: (-1, 1),
        Conv1D: (-1, 1),
    }
    for (layer, key), values in signals.items():
        p, mean = layer.get_parameter(key), torch.cat(values).mean(0)
        if p in names:
            omega = mean if key == "bias" else abs(p.detach()) * mean.view(shapes.get(type(layer), -1))
            importance[names[p]] = importance[names[p]] + omega
    return importance


def squared_batch_gradient(model, examples):
    """The common bug, `(d mean_examples log p / dw)^2` a batch of all examples, times examples per label token."""
    twin = copy.deepcopy(model).eval()
    total, tokens = 0, 0
    for example in examples:
        logits_TV, targets_T = _logits_and_targets(twin, example)
        log_p_TV = logits_TV - torch.log(torch.exp(logits_TV).sum(-1, keepdim=True))
        counted = _counted(targets_T)
        total = total + log_p_TV[counted, targets_T[counted]].sum()
        tokens += len(counted)
    gradients = _gradients(twin, total / len(examples))
    return {name: gradient * gradient * len(examples) / tokens for name, gradient in gradients.items()}


def label_tokens(examples):
    """Count the labels that are real tokens with a position before them."""
    return sum(len(_counted(_targets(example))) for example in examples)


def kl_per_token(model, other, example):
    """Mean over positions of `KL(p || q)` in nats, `p` of the model and `q` of the other."""
    with torch.no_grad():
        log_p, log_q = (torch.log_softmax(_logits_and_targets(m, example)[0], -1) for m in (model, other))
        return (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()


def divergence(old_log_p, new_log_p):
    """`KL(old || new)` at each position, over the whole vocabulary."""
    return (old_log_p.exp() * (old_log_p - new_log_p)).sum(-1)


def remembered_divergence(new_log_p, ids, log_probs, rest, draws=8):
    """The same from the likeliest tokens and from draws, which stand for the rest of the mass in equal parts."""
    p = torch.cat([log_probs[..., :-draws].exp(), rest[..., None].expand(*rest.shape, draws) / draws], -1)
    return (p / p.sum(-1, keepdim=True) * (log_probs - new_log_p.gather(-1, ids))).sum(-1)


def synaptic_intelligence(steps, end=None, damping=0.1):
    """`max(0, sum_steps -g (w_after - w_before) / ((w_end - w_start)^2 + damping))`, weight by weight.

    Each step is a triple of gradient, weights before and weights after, all by name; the last one's are the end.
    """
    importance = {}
    for name, start in steps[0][1].items():
        accrued = [0.0] * start.numel()
        for gradient, before, after in steps:
            for i, (g, b, a) in enumerate(_numbers(gradient[name], before[name], after[name])):
                accrued[i] += -g * (a - b)
        pairs = zip(accrued, _numbers(start, (end or steps[-1][2])[name]), strict=True)
        omega = [max(0.0, total / ((e - s) ** 2 + damping)) for total, (s, e) in pairs]
        importance[name] = torch.tensor(omega, dtype=torch.float64).reshape(start.shape)
    return importance


def penalty_value(w, anchor, omega, ewc_lambda, alpha):
    """`lambda/2 sum Omega / (1 + alpha lambda Omega) (w - w*)^2`, weight by weight."""
    return sum(
        ewc_lambda / 2 * o / (1 + alpha * ewc_lambda * o) * (x - a) ** 2 for x, a, o in _numbers(w, anchor, omega)
    )


def penalty_gradient(w, anchor, omega, ewc_lambda, alpha):
    """`lambda Omega / (1 + alpha lambda Omega) (w - w*)`, weight by weight."""
    pulls = [ewc_lambda * o / (1 + alpha * ewc_lambda * o) * (x - a) for x, a, o in _numbers(w, anchor, omega)]
    return torch.tensor(pulls, dtype=torch.float64).reshape(w.shape)


def proximal_step(w, anchor, omega, ewc_lambda, step):
    """The minimum over `u` of `lambda/2 Omega (u - w*)^2 + (u - w)^2 / (2 a)`: where its derivative in `u` is zero."""
    minima = [
        (ewc_lambda * o * a + x / s) / (ewc_lambda * o + 1 / s) for x, a, o, s in _numbers(w, anchor, omega, step)
    ]
    return torch.tensor(minima, dtype=torch.float64).reshape(w.shape)


def sgd_step(lr, momentum=0.0, dampening=0.0):
    """What a unit of gradient moves a weight in the end: its share of every momentum buffer that follows, summed."""
    if momentum == 0:
        return lr
    return lr * (1 - dampening) * sum(momentum**k for k in range(2000))


def adam_step(gradients, lr, beta2, eps, amsgrad=False):
    """`lr / (sqrt(v_hat) + eps)` after the optimizer has seen these gradients, one tensor a step."""
    v = largest = np.zeros(gradients[0].shape)
    for gradient in gradients:
        v = beta2 * v + (1 - beta2) * gradient.double().numpy() ** 2
        largest = np.maximum(largest, v)
    v_hat = (largest if amsgrad else v) / (1 - beta2 ** len(gradients))
    return torch.from_numpy(lr / (np.sqrt(v_hat) + eps))


def _per_token(model, examples, objective, statistic):
    return _per_label(model, examples, objective, statistic, label_tokens(examples))


def _per_label(model, examples, objective, statistic, num_labels):
    twin = copy.deepcopy(model).eval()
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in _held(twin).items()}
    for example in examples:
        for name, gradient in _gradients(twin, objective(twin, example)).items():
            sums[name] += statistic(gradient.double())
    return {name: total / num_labels for name, total in sums.items()}


def _held(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _gradients(model, value):
    held = _held(model)
    return dict(zip(held, torch.autograd.grad(value, held.values(), materialize_grads=True), strict=True))


def _logits_and_targets(model, example):
    inputs = {key: torch.as_tensor(example[key])[None] for key in ("input_ids", "attention_mask") if key in example}
    return model(**inputs).logits[0, :-1], _targets(example)


def _targets(example):
    ids = torch.as_tensor(example["input_ids"])
    targets = torch.as_tensor(example.get("labels", ids)).clone()
    mask = torch.as_tensor(example.get("attention_mask", torch.ones(len(ids))))
    targets[mask == 0] = IGNORED
    return targets[1:]


def _counted(targets_T):
    return [t for t, target in enumerate(targets_T.tolist()) if target != IGNORED]


def _labels(log_p_TV, targets_T, source, draws):
    if source == "ground_truth":
        return targets_T
    if source == "predicted":
        return log_p_TV.argmax(-1)
    uniforms_T = draws.random(len(targets_T)).tolist()
    drawn = []
    for p_V, u in zip(log_p_TV.exp().tolist(), uniforms_T, strict=True):
        cumulative = list(accumulate(p_V))
        drawn.append(next(v for v, c in enumerate(cumulative) if c > u * cumulative[-1]))
    return torch.tensor(drawn)


def _multiplied(layer, x):
    """What the layer's weight multiplies, [..., channels]."""
    match type(layer).__name__:
        case "Embedding":
            return nn.functional.one_hot(x, layer.num_embeddings).double()
        case "LayerNorm":
            centered = x - x.mean(-1, keepdim=True)
            return centered / ((centered**2).mean(-1, keepdim=True) + layer.eps) ** 0.5
        case "BatchNorm2d":
            return (x - layer.running_mean) / (layer.running_var + layer.eps) ** 0.5
        case "LlamaRMSNorm" | "Qwen3RMSNorm":
            return x / ((x**2).mean(-1, keepdim=True) + layer.variance_epsilon) ** 0.5
    return x


def _numbers(*tensors):
    return zip(*(tensor.double().flatten().tolist() for tensor in tensors), strict=True)
