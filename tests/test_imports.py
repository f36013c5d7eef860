"""Modules import only what lies below them, and importing the package stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ewc_hf

PACKAGE = Path(ewc_hf.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
LEVELS = (
    "arguments files memory modes processes sharding version",
    "checkpoints fingerprint params",
    "tensor_file zero",
    "engines labels model_sizes shards",
    "anchor batching buffers contributions text",
    "calls stored",
    "batched by_example consolidation",
    "gradients step_size",
    "penalty",
    "coupling importance perplexity placement",
    "config demo_text records",
    "picture plan",
    "report",
    "trainer",
    "baselines protocol settings",
    "study",
    "demo",
    "cli",
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names.split()}
ROOT = "ewc_hf"


def is_module(*parts):
    path = PACKAGE.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def internal_imports(source, module):
    """The modules of the package that `source`, at the path `module` inside it, imports: tuples of names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = (ROOT, *module.parts)[: -node.level] if node.level else ()
            base = (*above, *(node.module or "").split(".")) if node.module else above
            names = [(*base, alias.name) for alias in node.names]
            targets = [name if is_module(*name[1:]) else base for name in names]
        else:
            continue
        found.update(target[1:] for target in targets if target[0] == ROOT)
    return found


def level(name):
    if name == "__init__":
        return len(LEVELS)
    assert name in LEVEL_OF, f"place '{name}' in LEVELS of {__file__}, as ARCHITECTURE.md section 4 does"
    return LEVEL_OF[name]


def forbidden_imports(source, module):
    """Those that do not go down: each as 'who imports whom'."""
    part = module.with_suffix("").parts[0]
    here, wrong = level(part), []
    for target in internal_imports(source, module) if part != "__init__" else ():
        other = target[0] if target else "__init__"
        own_package = part == other and (part == "importance" or module.name == "__init__.py")
        if level(other) >= here and not own_package:
            wrong.append(f"{module} imports {'.'.join((ROOT, *target))}")
    return wrong


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module):
    assert forbidden_imports((PACKAGE / module).read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("penalty.py", "from .step_size import StepSize", []),
        ("step_size.py", "from .penalty import proximal_step", ["step_size.py imports ewc_hf.penalty"]),
        ("shards.py", "from .labels import IGNORED", ["shards.py imports ewc_hf.labels"]),
        ("shards.py", "from . import labels", ["shards.py imports ewc_hf.labels"]),
        ("importance/fisher.py", "from . import mas\nfrom .mas import UNIT", []),
        ("importance/fisher.py", "from ..trainer import EWCTrainer", ["importance/fisher.py imports ewc_hf.trainer"]),
        ("text.py", "def f():\n    import ewc_hf.study", ["text.py imports ewc_hf.study"]),
        ("trainer.py", "from ewc_hf import EWCConfig", ["trainer.py imports ewc_hf"]),
        ("trainer.py", "from ewc_hf.config import EWCConfig\nimport torch", []),
        ("cli/__init__.py", "from .study import main", []),
        ("cli/study.py", "from .sweep import main", ["cli/study.py imports ewc_hf.cli.sweep"]),
    ],
)
def test_the_rule_itself(module, source, wrong):
    assert forbidden_imports(source, Path(module)) == wrong


@pytest.mark.parametrize("module", ["novelty.py", "novelty/__init__.py", "novelty/part.py"])
def test_a_module_without_a_level_has_to_be_placed(module):
    with pytest.raises(AssertionError, match="place 'novelty' in LEVELS"):
        forbidden_imports("", Path(module))


def test_importing_the_package_leaves_heavy_libraries_alone():
    heavy = "{'matplotlib', 'trl', 'deepspeed'}"
    code = f"import sys, ewc_hf; print(sorted({heavy} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
