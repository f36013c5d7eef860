"""The same pictures, seen in other ways."""

import torch
from one_after_another import small_images

from ewc_hf.continual import permuted_tasks, rotated_tasks


def test_permuted():
    train, test = small_images(), small_images(20, seed=1)
    tasks = permuted_tasks(train, test, 4, seed=3)
    assert [task.name for task in tasks] == ["as they are", "permutation 1", "permutation 2", "permutation 3"]
    seen = [task.seen(train.pixels) for task in tasks]
    assert torch.equal(seen[0], train.pixels)
    for number, pixels in enumerate(seen):
        assert pixels.shape == train.pixels.shape
        assert torch.equal(pixels.flatten(1).sort().values, train.pixels.flatten(1).sort().values)
        assert not any(torch.equal(pixels, other) for other in seen[:number])
        order = [int((train.pixels[0].flatten() == value).nonzero()) for value in pixels[0].flatten()]
        assert torch.equal(pixels[5].flatten(), train.pixels[5].flatten()[order]), "one permutation for all pictures"
    again = permuted_tasks(train, test, 4, seed=3)[2].seen(train.pixels)
    assert torch.equal(again, seen[2])
    assert not torch.equal(permuted_tasks(train, test, 4, seed=4)[2].seen(train.pixels), seen[2])


def test_rotated():
    first, second = ((small_images(seed=seed), small_images(20, seed=seed + 1)) for seed in (0, 2))
    tasks = rotated_tasks(first, second)
    assert [task.train for task in tasks] == [first[0], second[0], first[0], second[0]]
    assert [task.test for task in tasks] == [first[1], second[1], first[1], second[1]]
    pixels = first[0].pixels
    assert torch.equal(tasks[1].seen(pixels), pixels)
    turned = tasks[2].seen(pixels[None])[0]
    for row in range(4):
        assert torch.equal(turned[:, row], pixels[:, :, 3 - row]), "against the clock"
