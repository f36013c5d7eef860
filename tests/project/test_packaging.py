"""What is distributed, and the wheel in an environment of its own, away from the repository and the network."""

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from tiny import SENTENCES, save_tiny_checkpoint

import ewc_hf

ROOT = Path(__file__).parents[2]
BUILD = "import setuptools.build_meta as b, sys; to = sys.argv[1]; b.build_wheel(to); b.build_sdist(to)"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Built from a copy of what git knows, so that nothing is left behind in the repository."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """An environment with the wheel alone; what it needs is lent by the one that tests run in."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(dist[0])],
        check=True, capture_output=True,
    )  # fmt: skip
    (site / "lent.pth").write_text(
        sysconfig.get_path("purelib")
    )  # whose own .pth files, the editable one, are not read
    return folder


def names_in(dist):
    wheel, sdist = dist
    in_sdist = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    return set(zipfile.ZipFile(wheel).namelist()), in_sdist


def test_the_wheel_holds_the_package_and_the_recipes_and_nothing_else(dist):
    names, _ = names_in(dist)
    modules = {f"ewc_hf/{path.relative_to(ROOT / 'ewc_hf')}" for path in (ROOT / "ewc_hf").rglob("*.py")}
    scripts = {
        f"ewc_hf/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.*") if path.suffix in (".py", ".yaml")
    }
    kept = {name for name in names if not name.startswith(f"ewc_hf-{ewc_hf.__version__}.dist-info/")}
    assert kept == modules | scripts | {"ewc_hf/py.typed"}


def test_the_source_distribution_holds_no_test(dist):
    """Setuptools adds files that are called tests/test*.py, without what they import: there are none."""
    _, names = names_in(dist)
    assert {"README.md", "LICENSE", "pyproject.toml", "recipes/finetune.py", "ewc_hf/trainer.py"} <= names
    assert not [name for name in names if name.startswith(("tests", "notebooks", "recipes/results"))]


def test_the_metadata(dist):
    with zipfile.ZipFile(dist[0]) as wheel:
        text = wheel.read(f"ewc_hf-{ewc_hf.__version__}.dist-info/METADATA").decode()
    told = email.message_from_string(text)
    assert told["Requires-Python"] == ">=3.11" and "Python 3.11 or newer" in (ROOT / "README.md").read_text()
    assert told["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in told.get_all("Classifier")
    assert {"deepspeed", "lm-eval", "test", "trl"} == set(told.get_all("Provides-Extra"))
    assert not [need for need in told.get_all("Requires-Dist") if need.startswith("torch==")]


def run(installed, folder, *words):
    """A command in the environment, in an empty folder and without a network."""
    environment = {
        "PATH": f"{installed / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1",
        "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1",
        **({"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if "LD_LIBRARY_PATH" in os.environ else {}),
    }  # fmt: skip
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_its_commands_run_without_a_clone(installed, tmp_path):
    save_tiny_checkpoint(tmp_path / "model", context=128)
    (tmp_path / "books.txt").write_text(" ".join(SENTENCES) * 40)
    python = str(installed / "bin/python")
    told = run(installed, tmp_path, python, "-m", "ewc_hf", "--version")
    assert told.stdout.strip() == f"ewc_hf {ewc_hf.__version__}", told.stderr
    where = run(installed, tmp_path, python, "-c", "import ewc_hf.recipes; print(ewc_hf.recipes.__path__[0])").stdout
    assert str(installed) in where
    estimate = ["estimate", "--model", "model", "--text", "books.txt", "--num_examples", "2"]
    finetune = [
        "finetune", "--model", "model", "--consolidation", "model", "--task", "books.txt", "--max_steps", "2",
        "--use_cpu", "true", "--report_to", "none", "--output_dir", "tuned",
    ]  # fmt: skip
    for command in (estimate, finetune, ["perplexity", "--model", "tuned", "--text", "books.txt"]):
        done = run(installed, tmp_path, python, "-m", "ewc_hf", *command)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "perplexity per token" in done.stdout
    wrong = run(
        installed, tmp_path, python, "-m", "ewc_hf", "perplexity", "--model", "no/model", "--text", "books.txt"
    )
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1].startswith("ewc-hf perplexity: ") and "Traceback" not in wrong.stderr


def test_importing_it_costs_nearly_nothing(installed, tmp_path):
    """At most 50 ms of processor time over transformers' own."""
    code = "import time, transformers; start = time.process_time(); import ewc_hf; print(time.process_time() - start)"
    assert float(run(installed, tmp_path, str(installed / "bin/python"), "-c", code).stdout) < 0.05
