"""How many numbers a run holds in this process: the penalty's state and the optimizer's."""

from torch.distributed.tensor import DTensor
from transformers import TrainerCallback


class Held(TrainerCallback):
    """Counts them after each step; `numbers` are those after the last one."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, *args, **kwargs):
        penalty = self.trainer._penalty
        (term,) = penalty._terms
        states = penalty._parameters.optimizer.state.values()
        self.numbers = {
            "importance": count(term.importance.values()),
            "anchor": count(term.anchor.values()),
            "moments": count(t for state in states for key, t in state.items() if key != "step"),
        }


def count(tensors):
    return sum(t.to_local().numel() if isinstance(t, DTensor) else t.numel() for t in tensors)
