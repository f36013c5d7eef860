"""Rooms import only rooms below them, by their doors; the house stays small, and importing it light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ewc_hf

ROOT = Path(ewc_hf.__file__).parent
REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "../shared/design/ARCHITECTURE.md"
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
ROWS = (
    "__main__.py cli/",
    "demo/ continual/",
    "study/ sft.py",
    "trainer.py card.py progress.py resuming.py plan/",
    "config.py",
    "importance/ penalty/",
    "consolidation/ per_example/ evaluation/ rehearsal/",
    "storage/ data/",
    "engines/ version.py",
)
"""From the top down. A folder is a room; the files of a row that lie in no folder are one room, too."""
NEW = {"__main__.py", "version.py", "continual/", "card.py", "progress.py"}
"""What the page does not know."""
ROW_OF = {name.removesuffix(".py").rstrip("/"): row for row, names in enumerate(ROWS) for name in names.split()}


def imports(source, module):
    """What of the package `source`, at the path `module` inside it, imports: tuples of names below the package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("ewc_hf", *module.parts)[: -node.level] if node.level else ()
            base = (*above, *node.module.split(".")) if node.module else above
            inner = [alias.name for alias in node.names if is_inner_file(*base[1:], alias.name)]
            targets = [(*base, name) for name in inner] + ([base] if len(inner) < len(node.names) else [])
        else:
            continue
        found.update(target[1:] for target in targets if target[0] == "ewc_hf")
    return found


def is_inner_file(*parts):
    """Whether it is a file or folder of the package, and not a name that a room's door gives out."""
    path = ROOT.joinpath(*parts)
    if not (path.is_dir() or path.with_suffix(".py").is_file()):
        return False
    door = path.parent / "__init__.py"
    return path.parent == ROOT or f'"{path.name}"' not in door.read_text(encoding="utf-8")


def row_of(name):
    assert name in ROW_OF, f"place '{name}' in ROWS of {__file__}, as ARCHITECTURE.md section 4 does"
    return ROW_OF[name]


def room_of(name):
    """A folder's own name; all files of one row share theirs."""
    return name if (ROOT / name).is_dir() else row_of(name)


def forbidden_imports(source, module):
    """Those that do not go down, or not through a room's door: each as 'who imports whom'."""
    here, wrong = module.with_suffix("").parts[0], []
    if module == Path("__init__.py"):
        return [f"{module} imports {'.'.join(target)}" for target in imports(source, module) if len(target) > 1]
    row_of(here)
    for target in sorted(imports(source, module)):
        own = bool(target) and room_of(target[0]) == room_of(here)
        down = bool(target) and row_of(target[0]) > row_of(here)
        if not own and not (down and len(target) == 1):
            wrong.append(f"{module} imports {'.'.join(('ewc_hf', *target))}")
    return wrong


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down_and_through_doors(module):
    assert forbidden_imports((ROOT / module).read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize("recipe", sorted((REPOSITORY / "recipes").rglob("*.py")), ids=lambda path: path.name)
def test_recipes_go_through_doors(recipe):
    assert [t for t in imports(recipe.read_text(encoding="utf-8"), Path("recipe.py")) if len(t) > 1] == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("penalty/kernels.py", "from .step_size import StepSize", []),
        ("penalty/kernels.py", "from ..engines import in_chunks", []),
        ("penalty/kernels.py", "from ..engines.chunks import in_chunks", ["ewc_hf.engines.chunks"]),
        ("penalty/kernels.py", "from ..engines import sharding", ["ewc_hf.engines.sharding"]),
        ("penalty/kernels.py", "from ..importance import Method", ["ewc_hf.importance"]),
        ("storage/shards.py", "from ..data import IGNORED", ["ewc_hf.data"]),
        ("storage/shards.py", "from .. import data", ["ewc_hf.data"]),
        ("storage/shards.py", "from ..consolidation import Consolidation", ["ewc_hf.consolidation"]),
        ("data/text.py", "def f():\n    import ewc_hf.study", ["ewc_hf.study"]),
        ("consolidation/stored.py", "from ..version import __version__", []),
        ("config.py", "from .penalty import Coupling\nimport torch", []),
        ("config.py", "from ewc_hf.penalty.coupling import Coupling", ["ewc_hf.penalty.coupling"]),
        ("trainer.py", "from .resuming import ResumingMixin", []),
        ("trainer.py", "from .plan import plan", ["ewc_hf.plan"]),
        ("trainer.py", "from ewc_hf import EWCConfig", ["ewc_hf"]),
        ("resuming.py", "from .study import run_study", ["ewc_hf.study"]),
        ("cli/plan.py", "from .arguments import parse_arguments", []),
        ("__init__.py", "from .engines.zero import ZeroParameters", ["engines.zero"]),
    ],
)
def test_the_rule_itself(module, source, wrong):
    assert forbidden_imports(source, Path(module)) == [f"{module} imports {name}" for name in wrong]


@pytest.mark.parametrize("module", ["novelty.py", "novelty/__init__.py", "novelty/part.py"])
def test_a_module_without_a_row_has_to_be_placed(module):
    with pytest.raises(AssertionError, match="place 'novelty' in ROWS"):
        forbidden_imports("", Path(module))


@pytest.mark.skipif(not PAGE.is_file(), reason="the page of the architecture is not beside this checkout")
def test_the_rows_are_the_architectures():
    table = PAGE.read_text(encoding="utf-8").split("| room | answers | files |")[1].split("\n\n")[0]
    rooms = [re.findall(r"`(\w+(?:/|\.py))`", line.split("|")[1]) for line in table.splitlines() if "`" in line]
    assert [sorted(row) for row in rooms] == [sorted(set(row.split()) - NEW) for row in ROWS]


def test_the_house_stays_small():
    assert len([module for module in MODULES if len(module.parts) == 1]) <= 9
    assert len({module.parts[0] for module in MODULES if len(module.parts) > 1}) <= 14


@pytest.mark.parametrize("folder", ["ewc_hf", "recipes", "tests"])
def test_no_file_is_longer_than_250_lines(folder):
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in (REPOSITORY / folder).rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 250} == {}


def test_importing_the_package_leaves_heavy_libraries_alone():
    heavy = "{'matplotlib', 'trl', 'deepspeed', 'lm_eval', 'evaluate', 'scipy.stats'}"
    names = "EWCTrainer, estimate_importance, evaluate_perplexity, generate_rehearsal, pack"
    code = f"import sys; from ewc_hf import {names}; print(sorted({heavy} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
