"""What TensorBoard, Weights & Biases and Trackio keep of a run, read back by their own libraries."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "tracked_run.py"
EACH_STEP = ("loss", "ewc_penalty", "ewc_predicted_forgetting", "rehearsal_kl")
EACH_EVALUATION = ("eval_loss", "eval_books_loss", "eval_books_perplexity")
AT_THE_END = ("forgetting", "forgetting_budget", "forgetting_t")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracked")
    environment = {
        **os.environ, "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"), "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder), "TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(PROGRAM.parent),
    }  # fmt: skip
    command = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, json.loads((folder / "history.json").read_text())


def logged(history, name):
    return [entry[name] for entry in history if name in entry]


def of_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    kept = {}
    for tag in events.Tags()["scalars"]:
        name = tag.removeprefix("train/") if tag.startswith("train/") else tag.replace("eval/", "eval_")
        kept[name] = [event.value for event in events.Scalars(tag)]
    return kept


def wandb_records(data, header=7, block=32768):
    """The parts of LevelDB's log format, joined where a record (types 2 to 4) is cut by the end of a block."""
    place, whole = header, b""
    while place + 7 <= len(data):
        if block - place % block < 7:  # too short for a header: padding
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def of_wandb(folder):
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    kept = {}
    for data in wandb_records(file.read_bytes()):
        for item in Record.FromString(data).history.item:
            name = (item.key or "/".join(item.nested_key)).removeprefix("train/").replace("eval/", "eval_")
            kept.setdefault(name, []).append(json.loads(item.value_json))
    return kept


def of_trackio(folder):
    kept = {}
    with sqlite3.connect(folder / "trackio" / "ewc.db") as database:
        for (metrics,) in database.execute("SELECT metrics FROM metrics ORDER BY id"):
            for tag, value in json.loads(metrics).items():
                kept.setdefault(tag.removeprefix("train/").replace("eval/", "eval_"), []).append(value)
    return kept


@pytest.mark.filterwarnings("ignore")  # the trackers' own
@pytest.mark.parametrize("kept_by", [of_tensorboard, of_wandb, of_trackio], ids=lambda read: read.__name__)
def test_a_tracker_keeps_the_penalty_the_rehearsal_and_the_forgetting(run, kept_by):
    folder, history = run
    kept = kept_by(folder)
    for names, times in ((EACH_STEP, 4), (EACH_EVALUATION, 2), (AT_THE_END, 1)):
        for name in names:
            assert len(logged(history, name)) == times, name
            assert kept[name] == pytest.approx(logged(history, name), rel=1e-5), name
