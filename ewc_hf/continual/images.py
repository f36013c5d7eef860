"""Pictures to classify: from local files, from the Hub, or scikit-learn's digits with nothing at hand.

Shapes: N pictures of H x W pixels.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from torch import Tensor

_NAMES = (("images", "labels"), ("x", "y"), ("x_{split}", "y_{split}"))
"""What a `.npz` file may call its two arrays."""
_IDX_MAGIC = {1: 0x801, 3: 0x803}
"""Of unsigned bytes, by number of dimensions."""


@dataclass(frozen=True)
class Images:
    """Labelled pictures.

    Attributes:
        pixels: grey levels from 0 to 1, [N, H, W].
        labels: the number of each picture's class, [N].
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.labels)

    def first(self, number: int | None) -> Images:
        """Return the first ones, or all."""
        return Images(self.pixels[:number], self.labels[:number])

    def last(self, number: int | None) -> Images:
        """Return the last ones, or all."""
        return self if number is None else Images(self.pixels[-number:], self.labels[-number:])

    def to(self, device: torch.device) -> Images:
        """Return them on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


def read_train_and_test(train: str | None, test: str | None, scale: int = 1) -> tuple[Images, Images]:
    """Read pictures to learn from and to test on, or take scikit-learn's digits.

    Args:
        train: where they are, as `read_images` takes it; None for digits.
        test: likewise; both or none.
        scale: of digits.

    Raises:
        ValueError: one of the two only, pictures of two sizes, and as `read_images`.
    """
    if (train is None) != (test is None):
        raise ValueError(
            f"expected pictures to learn from and to test on, got '{train}' and '{test}'; name both or none"
        )
    if train is None or test is None:
        return digits("train", scale), digits("test", scale)
    pair = read_images(train, "train"), read_images(test, "test")
    sizes = [tuple(images.pixels.shape[1:]) for images in pair]
    if sizes[0] != sizes[1]:
        raise ValueError(f"expected pictures of one size, got {sizes[0]} in '{train}' and {sizes[1]} in '{test}'")
    return pair


def num_classes(*sets: Images) -> int:
    """Return one more than the largest label of all."""
    return 1 + max(int(images.labels.max()) for images in sets)


def read_images(source: str, split: str) -> Images:
    """Read grey pictures of whole numbers from 0 to 255, and their labels.

    Args:
        source: a `.npz` file (`images` and `labels`, or `x` and `y`, or Keras' `x_train` and `y_train`), the pictures
            of MNIST's own format (`train-images-idx3-ubyte`, with its labels beside it; `.gz` too), or a Hub id with
            columns `image` and `label`.
        split: of a Hub dataset or a Keras file: "train" or "test".

    Raises:
        ValueError: nothing there that can be read, not one label a picture, or no picture.
    """
    path = Path(source)
    try:
        if path.suffix == ".npz":
            pixels, labels = _read_npz(path, split)
        elif path.is_file():
            pixels, labels = _read_idx(path, 3), _read_idx(_labels_beside(path), 1)
        else:
            dataset = load_dataset(source, split=split)
            pixels = np.stack([np.asarray(image.convert("L")) for image in dataset["image"]])
            labels = np.asarray(dataset["label"])
    except (AttributeError, OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"expected pictures and labels in '{source}' (.npz, MNIST's idx3-ubyte files, or a Hub dataset), got "
            f"{type(error).__name__}: {error}; check the path, the split and the network"
        ) from error
    if pixels.ndim != 3 or labels.shape != pixels.shape[:1] or not len(labels):
        raise ValueError(
            f"expected at least one picture, [N, H, W], and a label for each, in '{source}', got the shapes "
            f"{pixels.shape} and {labels.shape}; check the file"
        )
    if pixels.dtype != np.uint8 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(
            f"expected pictures of the type uint8 and labels that are whole numbers >= 0 in '{source}', got "
            f"{pixels.dtype} and {labels.dtype} from {labels.min()}; save them so"
        )
    return Images(torch.from_numpy(pixels.astype(np.float32)) / 255, torch.from_numpy(labels.astype(np.int64)))


def digits(split: str, scale: int = 1) -> Images:
    """Return scikit-learn's 8 x 8 digits: 1,437 to learn from, 360 to test on.

    Args:
        split: "train" or "test".
        scale: pixels that each becomes, in both directions.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits  # only here, so that nothing else needs it
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    parts = train_test_split(bunch.images, bunch.target, test_size=360, random_state=0, stratify=bunch.target)
    pixels, labels = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
    pixels = np.kron(pixels, np.ones((scale, scale)))
    return Images(torch.from_numpy(pixels).float() / 16, torch.from_numpy(labels))


def _read_npz(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        for names in _NAMES:
            of_pictures, of_labels = (name.format(split=split) for name in names)
            if of_pictures in arrays and of_labels in arrays:
                return arrays[of_pictures], arrays[of_labels]
        raise KeyError(f"arrays {list(arrays)}, none of {_NAMES}")


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read Yann LeCun's format: a magic number and the lengths, big-endian, and then the bytes."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    magic = int.from_bytes(content[:4], "big")
    if magic != _IDX_MAGIC[dimensions]:
        raise ValueError(f"the magic number {magic:#x} in '{path}', not {_IDX_MAGIC[dimensions]:#x}")
    header = np.frombuffer(content, ">i4", 1 + dimensions)
    return np.frombuffer(content, np.uint8, offset=header.nbytes).reshape(header[1:])


def _labels_beside(path: Path) -> Path:
    return path.with_name(path.name.replace("images-idx3", "labels-idx1"))
