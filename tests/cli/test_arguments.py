import sys
from dataclasses import dataclass, field

import pytest

from ewc_hf import Coupling, EWCConfig
from ewc_hf.cli import parse_arguments


@dataclass
class Task:
    model: str = field(metadata={"help": "Required."})
    rate: float = 1e-3
    alpha: float | None = None
    steps: int = 10
    shuffled: bool = False
    checked: bool = True
    settings: list[str] = field(default_factory=lambda: ["plain"])
    rates: list[float] = field(default_factory=lambda: [0.1])


@dataclass
class Other:
    seed: int = 0


@pytest.fixture
def config(tmp_path):
    """Writes a YAML file and returns the words that name it."""

    def write(text):
        path = tmp_path / "defaults.yaml"
        path.write_text(text, encoding="utf-8")
        return ["--config", str(path)]

    return write


def parse(*argv):
    return parse_arguments(Task, argv=list(argv))[0]


def test_without_a_file_the_dataclasses_defaults_hold():
    task, other = parse_arguments(Task, Other, argv=["--model", "gpt2", "--seed", "3"])
    assert task == Task("gpt2")
    assert other == Other(3)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        pytest.param("rate: 5e-4", "rate", 5e-4, id="5e-4, which is a string in YAML"),
        pytest.param("rate: 0.5", "rate", 0.5, id="float"),
        pytest.param("alpha: 5e-4", "alpha", 5e-4, id="optional float"),
        pytest.param("alpha: null", "alpha", None, id="null"),
        pytest.param("steps: 7", "steps", 7, id="int"),
        pytest.param("shuffled: true", "shuffled", True, id="bool on"),
        pytest.param("checked: no", "checked", False, id="bool off"),
        pytest.param("checked: 'false'", "checked", False, id="bool as a string"),
        pytest.param("settings: [plain, 'l2:loss:1']", "settings", ["plain", "l2:loss:1"], id="list"),
        pytest.param("rates: [0.5, 0.25]", "rates", [0.5, 0.25], id="list of floats"),
    ],
)
def test_a_file_gives_defaults(config, text, name, value):
    task = parse("--model", "gpt2", *config(text))
    assert getattr(task, name) == value
    assert type(getattr(task, name)) is type(value)


@pytest.mark.parametrize(
    ("text", "argv", "name", "value"),
    [
        ("rate: 5e-4", ["--rate", "2e-4"], "rate", 2e-4),
        ("alpha: 0.5", ["--alpha", "0.25"], "alpha", 0.25),
        ("checked: false", ["--checked", "true"], "checked", True),
        ("shuffled: true", ["--shuffled", "false"], "shuffled", False),
        ("settings: [a, b]", ["--settings", "c", "d", "e"], "settings", ["c", "d", "e"]),
        ("model: from-file", ["--model", "from-line"], "model", "from-line"),
    ],
)
@pytest.mark.parametrize("file_first", [True, False])
def test_the_command_line_wins(config, text, argv, name, value, file_first):
    text += "" if name == "model" else "\nmodel: gpt2"
    argv = [*config(text), *argv] if file_first else [*argv, *config(text)]
    assert getattr(parse(*argv), name) == value


def test_a_required_argument_may_come_from_the_file(config):
    assert parse(*config("model: gpt2")).model == "gpt2"


@pytest.mark.parametrize("argv", [[], ["--rate", "1"]])
def test_a_required_argument_has_to_come_from_somewhere(config, argv, capsys):
    with pytest.raises(SystemExit):
        parse(*argv, *config("rate: 0.5"))
    assert "--model" in capsys.readouterr().err


def test_the_file_may_be_named_with_an_equals_sign(config):
    assert parse("=".join(config("model: gpt2"))).model == "gpt2"


def test_the_words_are_by_default_the_process_own(config, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "--steps", "3", *config("model: gpt2")])
    assert parse_arguments(Task)[0] == Task("gpt2", steps=3)


def test_help_begins_with_the_description(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ewc-hf study"])
    with pytest.raises(SystemExit):
        parse_arguments(Task, argv=["--help"], description="Measures forgetting.")
    text = capsys.readouterr().out
    assert text.startswith("usage: ewc-hf study")
    assert "Measures forgetting." in text and "--config" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "model: a\nsteps_: 3\nrats: 1",
            r"got \['rats', 'steps_'\]; nearest are \['rates', 'steps'\]; see --help",
            id="unknown names",
        ),
        pytest.param("- model", "expected 'argument: value' lines in '.*defaults.yaml', got list", id="a list"),
        pytest.param("", "got NoneType", id="empty"),
        pytest.param("model", "got str", id="one word"),
    ],
)
def test_a_wrong_file_is_named(config, text, message):
    with pytest.raises(ValueError, match=message):
        parse("--model", "gpt2", *config(text))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--bogus", "1"], "unknown options ['--bogus']; see"),
        (["--setps", "1"], "unknown options ['--setps']; nearest are ['--steps']; see"),
        (["--setps=1", "--steps=2"], "unknown options ['--setps']; nearest are ['--steps']; see"),
        (["stray"], "expected an option before each value, got ['stray'] without one; see"),
    ],
)
def test_an_unknown_word_on_the_command_line_fails(words, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--model", "gpt2", *words)
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


def test_a_value_that_cannot_be_converted_fails(config, capsys):
    with pytest.raises(SystemExit):
        parse("--model", "gpt2", *config("steps: many"))
    assert "invalid int value: 'many'" in capsys.readouterr().err


def test_an_abbreviated_config_is_refused(config, capsys):
    """It would be taken for an abbreviation by one parser and not by the other, and the file go unread."""
    _, path = config("rate: 0.5")
    with pytest.raises(SystemExit):
        parse("--model", "gpt2", "--conf", path)
    assert "unknown options ['--conf']; nearest are ['--config']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [("rates: [5e-4, 1e-3]", "rates", [5e-4, 1e-3]), ("settings: plain", "settings", ["plain"])],
)
def test_lists_in_a_file_are_converted_too(config, text, name, value):
    assert getattr(parse("--model", "gpt2", *config(text)), name) == value


def test_with_the_training_arguments(config, tmp_path):
    argv = config(
        f"output_dir: {tmp_path}\nuse_cpu: true\nreport_to: none\nlearning_rate: 5e-4\n"
        "ewc_coupling: loss\newc_stabilized: false\newc_alpha: 5e-4\newc_lambda: 10\nmodel: gpt2"
    )
    task, args = parse_arguments(Task, EWCConfig, argv=[*argv, "--ewc_lambda", "3e1"])
    assert (task.model, args.output_dir, args.learning_rate) == ("gpt2", str(tmp_path), 5e-4)
    assert (args.ewc_lambda, args.ewc_alpha) == (30.0, 5e-4)
    assert args.ewc_stabilized is False
    assert args.ewc_coupling is Coupling.LOSS
    assert args.use_cpu is True


def test_the_penalty_on_the_command_line(config):
    argv = config("output_dir: out\nuse_cpu: true\newc_coupling: loss\newc_alpha: 0.5")
    (args,) = parse_arguments(EWCConfig, argv=[*argv, "--ewc_coupling", "decoupled", "--no_ewc_stabilized"])
    assert args.ewc_coupling is Coupling.DECOUPLED
    assert args.ewc_stabilized is False
    assert args.ewc_alpha == 0.5


def test_a_wrong_coupling_in_the_file_names_the_valid_ones(config):
    argv = config("output_dir: out\nuse_cpu: true\newc_coupling: penalty")
    with pytest.raises(ValueError, match="'loss', 'decoupled'"):
        parse_arguments(EWCConfig, argv=argv)
