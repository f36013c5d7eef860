"""The files of a stored consolidation: their names, their bytes, and whether they hold what was saved."""

import json

import torch

CONFIG = "ewc_config.json"
INDEX, ANCHOR_INDEX = "ewc_importance.safetensors.index.json", "ewc_anchor.safetensors.index.json"
ONE_SHARD = {CONFIG, INDEX, "ewc_importance.safetensors"}
ONE_ANCHOR = {ANCHOR_INDEX, "ewc_anchor.safetensors"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ewc_files(folder):
    return {path.name for path in folder.iterdir() if "ewc" in path.name}


def assert_equal(got, expected):
    for a, b in ((got.importance, expected.importance), (got.anchor, expected.anchor)):
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in b)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
