"""How many bytes of tensors are alive at once."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While it is entered, the most bytes that were alive at the same time, of what operations allocated.

    A file that is mapped into memory is given to them as a storage, and not counted.
    """

    def __init__(self):
        super().__init__()
        self.peak, self._alive = 0, {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {storage._cdata for storage in storages((args, kwargs))}
        results = operation(*args, **kwargs)
        for storage in storages(results):
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self._alive.values()))
        return results


def storages(tree):
    leaves = tree_leaves(tree)
    yield from (leaf.untyped_storage() for leaf in leaves if isinstance(leaf, torch.Tensor))
    yield from (leaf for leaf in leaves if isinstance(leaf, torch.UntypedStorage))
