"""Pictures from files of all kinds, and what is no picture."""

import gzip
import struct

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from ewc_hf.continual import digits, num_classes, read_images, read_train_and_test

PIXELS = (np.arange(5 * 4 * 3) * 4).astype(np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)


def write_npz(folder):
    np.savez(folder / "pictures.npz", images=PIXELS, labels=LABELS)
    return folder / "pictures.npz"


def write_keras(folder):
    np.savez(folder / "mnist.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:1], y_test=LABELS[:1])
    return folder / "mnist.npz"


def write_idx(folder, compress=False):
    suffix, opened = (".gz", gzip.open) if compress else ("", open)
    for name, magic, array in (("images-idx3", 0x803, PIXELS), ("labels-idx1", 0x801, LABELS)):
        with opened(folder / f"train-{name}-ubyte{suffix}", "wb") as file:
            file.write(struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes())
    return folder / f"train-images-idx3-ubyte{suffix}"


def write_dataset(folder):
    rows = {"image": [Image.fromarray(picture) for picture in PIXELS], "label": LABELS.tolist()}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "dataset" / "train.parquet")
    return folder / "dataset"


@pytest.mark.parametrize(
    "write", [write_npz, write_keras, write_idx, lambda folder: write_idx(folder, compress=True), write_dataset]
)
def test_kinds_of_files(tmp_path, write, datasets_cache):
    (tmp_path / "dataset").mkdir()
    images = read_images(str(write(tmp_path)), "train")
    assert images.pixels.dtype == torch.float32
    assert torch.equal(images.pixels, torch.from_numpy(PIXELS).float() / 255)
    assert images.labels.tolist() == LABELS.tolist()
    assert len(images) == 5 and len(images.first(2)) == 2 and len(images.first(None)) == 5


def test_split_of_one_file(tmp_path):
    assert len(read_images(str(write_keras(tmp_path)), "test")) == 1


def test_digits():
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.pixels.shape[1:] == (8, 8) and float(train.pixels.max()) == 1
    assert set(test.labels.tolist()) == set(range(10))
    assert torch.equal(digits("test", scale=2).pixels[:, ::2, 1::2], test.pixels)
    seen = {picture.numpy().tobytes() for picture in train.pixels}
    assert not any(picture.numpy().tobytes() in seen for picture in test.pixels)


def swapped(folder):
    path = write_idx(folder)
    return path.with_name(path.name.replace("images-idx3", "labels-idx1"))


def truncated(folder):
    path = write_idx(folder)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def without_labels(folder):
    path = write_idx(folder)
    path.with_name("train-labels-idx1-ubyte").unlink()
    return path


def other_names(folder):
    np.savez(folder / "pictures.npz", pixels=PIXELS, labels=LABELS)
    return folder / "pictures.npz"


def fewer_labels(folder):
    np.savez(folder / "pictures.npz", images=PIXELS, labels=LABELS[:4])
    return folder / "pictures.npz"


def no_zip(folder):
    (folder / "pictures.npz").write_bytes(b"no archive")
    return folder / "pictures.npz"


def in_unit(folder):
    np.savez(folder / "pictures.npz", images=PIXELS.astype(np.float32) / 255, labels=LABELS)
    return folder / "pictures.npz"


def negative_labels(folder):
    np.savez(folder / "pictures.npz", images=PIXELS, labels=LABELS.astype(np.int64) - 2)
    return folder / "pictures.npz"


@pytest.mark.parametrize(
    ("write", "got"),
    [
        (swapped, "the magic number 0x801"),
        (truncated, "cannot reshape"),
        (without_labels, "No such file"),
        (other_names, r"arrays \['pixels', 'labels'\]"),
        (fewer_labels, r"shapes \(5, 4, 3\) and \(4,\)"),
        (no_zip, "got "),
        (in_unit, "got float32 and uint8"),
        (negative_labels, "got uint8 and int64 from -1"),
        (lambda folder: folder / "nothing.npz", "No such file"),
    ],
)
def test_refused(tmp_path, write, got):
    with pytest.raises(ValueError, match=got) as error:
        read_images(str(write(tmp_path)), "train")
    assert "expected" in str(error.value) and ("check the" in str(error.value) or "save them" in str(error.value))


def test_pairs(tmp_path):
    path = str(write_keras(tmp_path))
    train, test = read_train_and_test(path, path)
    assert (len(train), len(test), num_classes(train, test)) == (5, 1, 6)
    assert [len(images) for images in read_train_and_test(None, None)] == [1437, 360]
    assert read_train_and_test(None, None, scale=2)[1].pixels.shape == (360, 16, 16)
    with pytest.raises(ValueError, match="to test on, got 'a' and 'None'; name both or none"):
        read_train_and_test("a", None)
    np.savez(tmp_path / "wide.npz", images=PIXELS.reshape(5, 3, 4), labels=LABELS)
    with pytest.raises(ValueError, match=r"pictures of one size, got \(4, 3\) in .* and \(3, 4\) in"):
        read_train_and_test(path, str(tmp_path / "wide.npz"))
