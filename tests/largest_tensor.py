"""How large a tensor becomes, of one type of number."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """While it is entered, how many numbers the largest tensor of a dtype has that an operation made, not viewed."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype, self.numel = dtype, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        results = operation(*args, **(kwargs or {}))
        given = {
            arg.untyped_storage().data_ptr() for arg in tree_leaves((args, kwargs)) if isinstance(arg, torch.Tensor)
        }
        for result in tree_leaves(results):
            is_one = isinstance(result, torch.Tensor) and result.dtype == self.dtype
            if is_one and result.untyped_storage().data_ptr() not in given:
                self.numel = max(self.numel, result.numel())
        return results
