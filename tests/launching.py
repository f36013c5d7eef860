"""Recipes as a user launches them, and scripts of these tests in several processes."""

import gc
import os
import subprocess
import sys
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "recipes"


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


def launch_together(script, *words, processes=2):
    """Run a script of these tests in several processes, as `torchrun` does."""
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(tests.parent)}
    script = [str(tests / script), *map(str, words)]
    return subprocess.run([*command, *script], env=environment, capture_output=True, text=True, timeout=600)


def run_together(script, *words, processes=2):
    """Run it to its end, which has to be a good one."""
    done = launch_together(script, *words, processes=processes)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def be_one_of_several(main):
    """Call `main(folder, *words)` in one of the processes of a script that is run in several."""
    import torch

    gc.freeze()  # each `Trainer` collects garbage, and need not look at what was imported
    main(Path(sys.argv[1]), *sys.argv[2:])
    torch.distributed.destroy_process_group()
    print(end="", flush=True)
    os._exit(0)  # torch's threads now and then abort a process whose interpreter ends before them
