"""Consolidations that differ from another in some tensors, names or metadata."""

from ewc_hf import Consolidation


def changed(consolidation, importance=None, anchor=None, **metadata):
    return Consolidation(
        {**consolidation.importance, **(importance or {})},
        {**consolidation.anchor, **(anchor or {})},
        {**consolidation.metadata, **metadata},
    )


def renamed(consolidation, names):
    """Keep the parameters that `names` has a new name for."""
    return Consolidation(
        {new: consolidation.importance[old] for old, new in names.items()},
        {new: consolidation.anchor[old] for old, new in names.items()},
        consolidation.metadata,
    )
