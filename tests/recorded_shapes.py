"""A record of the dtypes and shapes of what torch makes."""

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode


def storage(tensor):
    return None if isinstance(tensor, DTensor) else tensor.untyped_storage().data_ptr()


class Shapes(TorchDispatchMode):
    """Notes dtype and shape of all that torch makes, but for views of what is there, such as a mapped file."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {storage(value) for value in args if isinstance(value, torch.Tensor)}
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and storage(tensor) not in given:
                self.seen.add((str(tensor.dtype), tuple(tensor.shape)))
        return result
