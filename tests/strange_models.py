"""Language models of which a batched pass sees some part wrongly or not at all."""

import torch
from architectures import VOCAB
from torch import nn
from torch.utils.checkpoint import checkpoint

from ewc_hf.per_example import GradientPath


class Strange(nn.Module):
    """A model with one part that hooks on modules see wrongly or not at all."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.part = part
        self.table = nn.Embedding(VOCAB, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, VOCAB, bias=False)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, input_ids):
        x = self.table(input_ids)
        even_B11 = (input_ids % 2 == 0).all(1)[:, None, None]
        match self.part:
            case "bare parameter":
                x = x * self.scale
            case "used without its module":
                x = self.mix(x) @ self.mix.weight.T
            case "flattened":
                x = self.mix(x.flatten(0, 1)).view(x.shape)
            case "time first":
                x = self.mix(x.transpose(0, 1)).transpose(0, 1)
            case "called twice":
                x = self.mix(torch.tanh(self.mix(x)))
            case "changed in place":
                x = torch.tanh(self.mix(x).mul_(2).add_(x))
            case "nested":
                x = self.mix(torch.tanh(self.head(x))[..., :6])
            case "without gradient":
                with torch.no_grad():
                    y = self.mix(x)
                x = self.mix(x) + y
            case "checkpointed":
                x = checkpoint(lambda x: torch.tanh(self.mix(x)), x, use_reentrant=False)
            case "across examples":
                x = self.mix(x) + self.mix(x).mean(0, keepdim=True)
            case "late":
                x = torch.where(even_B11, self.mix(x), x)
            case "late and without its module":
                x = torch.where(even_B11, x @ self.mix.weight.T, x)
        return self.head(x)


PARTS = {
    "bare parameter": GradientPath.EXAMPLE,
    "used without its module": GradientPath.EXAMPLE,
    "flattened": GradientPath.EXAMPLE,
    "time first": GradientPath.EXAMPLE,
    "called twice": GradientPath.CLOSED_FORM,
    "changed in place": GradientPath.EXAMPLE,
    "nested": GradientPath.CLOSED_FORM,
    "without gradient": GradientPath.CLOSED_FORM,
    "checkpointed": GradientPath.CLOSED_FORM,
    "across examples": GradientPath.EXAMPLE,
    "late": GradientPath.EXAMPLE,
    "late and without its module": GradientPath.EXAMPLE,
}
"""Strange parts, and the path on which they are exact. The late ones act in the last batch only."""
