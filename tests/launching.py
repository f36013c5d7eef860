"""Recipes as a user launches them, and functions of these tests in processes of their own."""

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import torch

RECIPES = Path(__file__).parent.parent / "recipes"
_FORKED = multiprocessing.get_context("forkserver")
"""Each process is forked from one that has imported everything and computed nothing, also those of torch."""
_FORKED.set_forkserver_preload(["ewc_hf.trainer", "transformers.models.gpt2.modeling_gpt2"])


def launch(folder, config, recipe, *options):
    """Run a recipe in `folder` as a user would, and return what it printed."""
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if config != "cpu":
        command += ["--main_process_port", "0"]  # any that is free
    quiet_exit = str(Path(__file__).parent / "quiet_exit")
    result = subprocess.run(
        [*command, "--config_file", str(RECIPES / "accelerate" / f"{config}.yaml"), str(RECIPES / recipe), *options],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": quiet_exit},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def exit_code(target, *args):
    """Call it in a process of its own, and return how that ended."""
    process = _FORKED.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def run_together(main, folder, *words, processes=2):
    """Call `main(folder, *words)` in several processes that find each other as those of `torchrun` do.

    `torch.multiprocessing` raises what the first of them raised or died of, and ends the others.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (main, folder, words, processes, port)
    torch.multiprocessing.start_processes(_be_one_of_several, given, processes, start_method="forkserver")


def run_recipe_together(folder, name, *words):
    """Run a recipe in `folder` in two processes, and return what both printed."""
    run_together(_print_into_file, folder, name, words)
    return "".join((folder / f"{name}-{rank}.txt").read_text() for rank in range(2))


def _print_into_file(folder, name, words):
    os.chdir(folder)
    sys.argv = [name, *words]
    with open(f"{name}-{os.environ['RANK']}.txt", "w") as file, contextlib.redirect_stdout(file):
        runpy.run_path(str(RECIPES / name), run_name="__main__")


def _be_one_of_several(rank, main, folder, words, processes, port):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    faulthandler.dump_traceback_later(600, exit=True)  # should it wait for another for ever
    torch.set_num_threads(1)
    gc.freeze()  # each `Trainer` collects garbage, and need not look at what was imported
    main(folder, *words)
    torch.distributed.destroy_process_group()
    os._exit(0)  # torch's threads now and then abort a process whose interpreter ends before them
