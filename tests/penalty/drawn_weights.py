"""Weights, anchors, importance and second moments, drawn by a seed."""

import torch


def draw(shape, dtype=torch.float64, seed=0):
    """Weight, anchor, importance over several magnitudes with zeros, and a second moment."""
    draws = torch.Generator().manual_seed(seed)
    w, anchor, u, v = (torch.rand(shape, generator=draws, dtype=torch.float64) for _ in range(4))
    omega = torch.where(u < 0.2, 0.0, 10 ** (6 * u - 4))
    return (w - 0.5).to(dtype), (anchor - 0.5).to(dtype), omega, v
