"""How large a tensor becomes, of one type of number."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """While it is entered, the largest tensor of a dtype that an operation returned, counted in numbers."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype, self.numel = dtype, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        results = operation(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor) and result.dtype == self.dtype:
                self.numel = max(self.numel, result.numel())
        return results
