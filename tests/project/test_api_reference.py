"""The reference that is built from docstrings, and their examples, which run."""

import doctest
import inspect
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
import transformers
from small_runs import arguments
from tiny import SENTENCES, save_tiny_checkpoint, tiny_gpt2, tiny_tokenizer

import ewc_hf
from ewc_hf import EWCConfig, EWCMixin, EWCTrainer, generate_rehearsal

NAMES = [name for name in ewc_hf.__all__ if name != "__version__"]
ROOMS = ("data", "evaluation", "importance", "rehearsal", "study")


@pytest.fixture(scope="module")
def known(tmp_path_factory, request):
    """What the examples take for granted, and where they write."""
    folder, model, tokenizer = tmp_path_factory.mktemp("examples"), tiny_gpt2(), tiny_tokenizer()
    texts = [" ".join(SENTENCES), *SENTENCES]
    blocks = [{"input_ids": [i % 7 + 1, 2, 3, 4, 5], "labels": [i % 7 + 1, 2, 3, 4, 5]} for i in range(8)]
    for seed, name in enumerate(("base", "tuned")):
        save_tiny_checkpoint(folder / name, seed=seed)
    ewc_hf.estimate_importance(model, blocks, progress=False).save_pretrained(folder / "old")
    generate_rehearsal(model, tokenizer, num_rows=2, num_tokens=8, progress=False).save_pretrained(folder / "old")
    everything = {name: getattr(ewc_hf, name) for name in ewc_hf.__all__}
    library = {name: getattr(transformers, name) for name in ("Trainer", "Seq2SeqTrainer", "Seq2SeqTrainingArguments")}
    given = {
        "model": model, "tokenizer": tokenizer, "texts": texts, "books": texts, "dialogs": texts, "blocks": blocks,
        "args": arguments(folder / "run"), "dataclass": dataclass, "Dataset": datasets.Dataset,
    }  # fmt: skip
    return folder, {**everything, **library, **given}


class _Checker(doctest.OutputChecker):
    """What an example does not show it may print: a run its logs."""

    def check_output(self, want, got, flags):
        return not want or super().check_output(want, got, flags)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_has_an_example_that_runs(name, known, monkeypatch):
    folder, names = known
    monkeypatch.chdir(folder)
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(getattr(ewc_hf, name)), {**names, "__name__": "example"}, name, None, None
    )
    assert example.examples
    told = []
    failed = doctest.DocTestRunner(_Checker(), verbose=False).run(example, out=told.append).failed
    assert failed == 0, "".join(told)


def test_an_editor_is_told_all_arguments_of_the_trainer():
    given = inspect.signature(EWCTrainer).parameters
    assert set(given) == {
        *inspect.signature(transformers.Trainer).parameters, "consolidation", "rehearsal", "retention_texts"
    }  # fmt: skip
    assert list(given)[:2] == ["model", "args"]
    assert {"ewc_lambda", "learning_rate"} <= inspect.signature(EWCConfig).parameters.keys()


def test_an_editor_is_told_all_arguments_of_a_users_own_trainer():
    class Noisy(EWCTrainer):
        def __init__(self, noise, *args, seed=0, **kwargs):
            super().__init__(*args, **kwargs)

    class Quiet(EWCTrainer):
        def __init__(self, noise=0.1, *args, **kwargs):
            super().__init__(*args, **kwargs)

    class Closed(EWCTrainer):
        def __init__(self, model, noise):
            super().__init__(model)

    class Sequences(EWCMixin, transformers.Seq2SeqTrainer):
        pass

    theirs = [*inspect.signature(EWCTrainer).parameters]
    assert [*inspect.signature(Noisy).parameters] == ["noise", *theirs[:-3], "seed", *theirs[-3:]]
    quiet = inspect.signature(Quiet).parameters
    assert {*quiet} == {"noise", *theirs} and quiet["model"].kind is inspect.Parameter.KEYWORD_ONLY
    assert [*inspect.signature(Closed).parameters] == ["model", "noise"]
    of_sequences = [*inspect.signature(transformers.Seq2SeqTrainer).parameters]
    assert [*inspect.signature(Sequences).parameters] == [*of_sequences, *theirs[-3:]]
    assert {"consolidation", "args", "kwargs"} <= inspect.signature(EWCMixin).parameters.keys()


def test_the_reference_is_built_without_a_warning(tmp_path):
    import pdoc

    for name in ewc_hf.__all__:
        getattr(ewc_hf, name)  # pdoc looks where names are once they were asked for
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("ewc_hf", *(f"ewc_hf.{room}" for room in ROOMS), output_directory=tmp_path)
    page = (tmp_path / "ewc_hf.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in page for name in NAMES)
    assert {path.stem for path in (tmp_path / "ewc_hf").iterdir()} == set(ROOMS)
    assert "Omega_i = sum_examples" in page


def test_a_users_program_passes_a_strict_type_checker(tmp_path):
    """With the package's own types, and not those of torch and transformers."""
    (tmp_path / "user.py").write_text(
        "from ewc_hf import Consolidation, EWCConfig, PerplexityResult, estimate_importance, evaluate_perplexity\n"
        "def nats(result: PerplexityResult) -> float:\n    return result.nll\n"
        "def merged(old: Consolidation, new: Consolidation) -> Consolidation:\n    return old.merge(new, decay=0.9)\n"
    )
    root = Path(ewc_hf.__file__).parents[1]
    text = (root / "pyproject.toml").read_text(encoding="utf-8").replace('packages = ["ewc_hf"]\n', "")
    config = tmp_path / "pyproject.toml"
    config.write_text(text[text.index("[tool.mypy]") : text.index("[tool.pytest")])
    options = ["--strict", "--config-file", config, "--follow-imports=silent", tmp_path / "user.py"]
    done = subprocess.run([sys.executable, "-m", "mypy", *options], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
