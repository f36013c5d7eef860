"""The paper's own experiments, on scikit-learn's digits: the quick forms."""

import json

import pytest
from launching import RECIPES


@pytest.fixture
def run(tmp_path, run_recipe, capsys):
    """Runs a quick form, or less of it, and returns what it printed."""

    def run(recipe, *options):
        quick = ["--config", str(RECIPES / f"{recipe}_quick.yaml"), "--output_dir", str(tmp_path / "out")]
        run_recipe(f"{recipe}.py", *quick, *options)
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_permuted(tmp_path, run):
    printed = run("permuted_mnist", "--epochs", "10", "--num_tasks", "3")
    assert printed.count("| stabilized") == 3 and "paper" not in printed
    sweeps = json.loads((tmp_path / "out" / "sweep.json").read_text())["sweeps"]
    for sweep in sweeps:
        unprotected, *others = sweep["points"]
        assert unprotected["ewc_lambda"] == 0
        assert max(point["mean"] for point in others) > unprotected["mean"] + 0.03
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").iterdir()}
    assert len(kept) == 2 * (1 + 3 * 3)
    more = run("permuted_mnist", "--epochs", "10", "--num_tasks", "3", "--rows", "fisher:stabilized:10,100,1000")
    assert more.count("| stabilized") == 1
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").iterdir()} == kept


@pytest.mark.slow
def test_rotated(tmp_path, run):
    printed = run("rotated_mnist", "--epochs", "4")
    assert "a reduced protocol" in printed and printed.count("| stabilized") == 2
    for sweep in json.loads((tmp_path / "out" / "sweep.json").read_text())["sweeps"]:
        unprotected, *others = sweep["points"]
        assert max(point["mean"] for point in others) > unprotected["mean"]


@pytest.mark.slow
def test_stabilization(tmp_path, run):
    """Plain EWC explodes under SGD, and nothing else does anywhere."""
    run("stabilization", "--epochs", "4")
    record = json.loads((tmp_path / "out" / "stabilization.json").read_text())
    for optimizer, forms in record["paths"].items():
        for form, ends in forms.items():
            explodes = any(end["farthest"] is None or end["farthest"] > 1e3 for end in ends)
            assert explodes == (optimizer == "SGD" and form == "plain"), (optimizer, form)
    assert record["spread"].keys() == {"perceptron", "convolutions"}


@pytest.mark.slow
def test_pruning(tmp_path, run):
    """The criteria that know the weights' size hold longest, as in the paper."""
    run("pruning")
    curves = json.loads((tmp_path / "out" / "pruning.json").read_text())["curves"]
    mean = {curve["criterion"]: [sum(at) / len(at) for at in zip(*curve["scores"], strict=True)] for curve in curves}
    assert mean.keys() == {"magnitude", "signal", "fisher", "mas", "synaptic"}
    for criterion, scores in mean.items():
        assert scores[0] > 0.95 and scores[-1] < 0.15
        assert scores[7] <= mean["magnitude"][7], criterion
    assert min(mean["magnitude"][7], mean["signal"][7]) > max(mean["fisher"][7], mean["mas"][7])


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("pruning", ["--text", "a.txt"], "expected a language model beside text, got none"),
        ("pruning", ["--model", "gpt2"], "expected --text and --text_test beside --model"),
        ("pruning", ["--step", "0.3", "--most", "0.2"], "expected 0 < step <= most <= 1"),
        ("stabilization", ["--method", "synaptic"], "expected an importance that is estimated on pictures"),
        ("stabilization", ["--model", "gpt2"], "expected a language model and its text"),
        ("permuted_mnist", ["--train", "a.npz"], "expected pictures to learn from and to test on"),
        ("permuted_mnist", ["--rows", "fisher:1"], "expected METHOD:FORM:LAMBDAS"),
        ("rotated_mnist", ["--second_train", "a.npz"], "expected pictures to learn from and to test on"),
    ],
)
def test_refused(tmp_path, run, recipe, options, message):
    """Before anything is learned or written."""
    with pytest.raises(ValueError, match=message):
        run(recipe, *options)
    assert not (tmp_path / "out").exists()
