"""A slow float64 twin of the paper's protocol: one network, penalty in autograd, importances example by example."""

import oracles
import torch
from torch.nn.functional import cross_entropy

from ewc_hf.continual import Images, Lessons, Perceptron, permuted_tasks

LESSONS = Lessons(epochs=2, batch_size=10, learning_rate=1e-2)
NUM_EXAMPLES = 12
DAMPING = 0.1
SIZES = (16, 8, 6, 3)


def small_images(number=30, side=4, classes=3, seed=0):
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.rand(number, side, side, generator=draws, dtype=torch.float64)
    return Images(pixels, torch.arange(number) % classes)


def small_tasks(num_tasks=3):
    return permuted_tasks(small_images(), small_images(20, seed=1), num_tasks)


def perceptron(seed):
    torch.manual_seed(seed)
    return Perceptron(SIZES).double()


def learned(network, tasks, lessons, seed, method=None, form="plain", ewc_lambda=0.0):
    """Let one network learn all tasks; return the accuracy on each task that was learned by then, after each."""
    parameters = dict(network.named_parameters())
    optimizer = torch.optim.Adam(network.parameters(), lr=lessons.learning_rate)
    importance, anchor, accuracy = {}, {}, []
    for number, task in enumerate(tasks):
        start = {name: p.detach().clone() for name, p in parameters.items()}
        fall = {name: torch.zeros_like(p) for name, p in parameters.items()}
        draws = torch.Generator().manual_seed(1000 * seed + number)
        network.train()
        for _ in range(lessons.epochs):
            order = torch.randperm(len(task.train), generator=draws)
            for chosen in order.split(lessons.batch_size):
                loss = cross_entropy(network(task.seen(task.train.pixels[chosen])), task.train.labels[chosen])
                for name, omega in importance.items() if form != "decoupled" else ():
                    alpha = lessons.learning_rate if form == "stabilized" else 0.0
                    strength = ewc_lambda * omega / (1 + alpha * ewc_lambda * omega)
                    loss = loss + (strength * (parameters[name] - anchor[name]) ** 2).sum() / 2
                before = {name: p.detach().clone() for name, p in parameters.items()}
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if form == "decoupled":
                    _pull(parameters, importance, anchor, ewc_lambda, optimizer)
                for name, p in parameters.items():
                    fall[name] -= p.grad * (p.detach() - before[name])
        accuracy.append([_accuracy(network, seen) for seen in tasks[: number + 1]])
        anchor = {name: p.detach().clone() for name, p in parameters.items()}
        if method == "synaptic":
            new = {name: (f / ((anchor[name] - start[name]) ** 2 + DAMPING)).clamp(min=0) for name, f in fall.items()}
        else:
            new = _importance(network, task, method)
        importance = {name: importance.get(name, 0) + omega for name, omega in new.items()}
    return accuracy


def _pull(parameters, importance, anchor, ewc_lambda, optimizer):
    """`w <- w + c (w* - w)`, `c = a lambda Omega / (1 + a lambda Omega)`, `a` the step of Adam."""
    group = optimizer.param_groups[0]
    for name, omega in importance.items():
        p, state = parameters[name], optimizer.state[parameters[name]]
        v_hat = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"].item())
        pull = group["lr"] / (v_hat.sqrt() + group["eps"]) * ewc_lambda * omega
        with torch.no_grad():
            p += pull / (1 + pull) * (anchor[name] - p)


def _importance(network, task, method):
    pixels = task.seen(task.train.pixels[-NUM_EXAMPLES:])
    labels = task.train.labels[-NUM_EXAMPLES:]
    examples = [{"images": image, "label": int(label)} for image, label in zip(pixels, labels, strict=True)]

    def logits_of(twin, example):
        return twin(example["images"][None]), [example["label"]]

    if method == "fisher":
        return oracles.fisher_of(network, examples, len(examples), logits_of)
    if method == "mas":
        norms = [(torch.softmax(network.eval()(image[None]), -1) ** 2).sum() for image in pixels]
        gradients = [torch.autograd.grad(norm, network.parameters()) for norm in norms]
        means = (sum(of_one.abs() for of_one in each) / len(pixels) for each in zip(*gradients, strict=True))
        return dict(zip((name for name, _ in network.named_parameters()), means, strict=True))
    if method == "signal":
        return oracles.signal(network, examples, lambda twin, example: twin(example["images"][None]))
    return {}


def _accuracy(network, task):
    network.eval()
    with torch.no_grad():
        right = network(task.seen(task.test.pixels)).argmax(1) == task.test.labels
    return right.double().mean().item()
