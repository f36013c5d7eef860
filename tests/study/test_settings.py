import pytest

from ewc_hf.importance import Method
from ewc_hf.study import Setting, parse_settings


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        ([], ["plain"]),
        (["plain"], ["plain"]),
        (["plain", "plain"], ["plain"]),
        (["l2:loss:1"], ["plain", "l2-loss-1"]),
        (["fisher:loss:10,30,100"], ["plain", "fisher-loss-10", "fisher-loss-30", "fisher-loss-100"]),
        (["fisher:decoupled:0.5", "mas:loss:1e-3"], ["plain", "fisher-decoupled-0.5", "mas-loss-0.001"]),
        (["l2:loss:1", "plain"], ["plain", "l2-loss-1"]),
    ],
)
def test_settings_are_read(specs, names):
    settings = parse_settings(specs)
    assert [setting.name for setting in settings] == names
    assert settings[0] == Setting("plain")


def test_a_setting_has_its_parts():
    overrides = {"ewc_coupling": "decoupled", "ewc_lambda": 2.5}
    assert parse_settings(["fisher:decoupled:2.5"])[1] == Setting("fisher-decoupled-2.5", Method.FISHER, overrides)


def test_each_of_several_values_makes_a_setting():
    settings = parse_settings(["plain:learning_rate=1e-4,2e-4", "mas:loss:1,2:ewc_stabilized=false:max_steps=5"])
    assert [(setting.name, setting.method, setting.overrides) for setting in settings[1:]] == [
        ("plain-learning_rate=1e-4", None, {"learning_rate": 1e-4}),
        ("plain-learning_rate=2e-4", None, {"learning_rate": 2e-4}),
        *[
            (
                f"mas-loss-{strength}-ewc_stabilized=false-max_steps=5",
                Method.MAS,
                {"ewc_coupling": "loss", "ewc_lambda": strength, "ewc_stabilized": False, "max_steps": 5},
            )
            for strength in (1, 2)
        ],
    ]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("plain:learnin_rate=1", "'learnin_rate' is no option"),
        ("plain:learning_rate=fast", "fast"),
        ("plain:seed=1", "'seed' is no option"),
        ("plain:bf16=perhaps", "perhaps"),
        ("plain:loss:10", "'plain' takes options"),
        ("plain:ewc_alpha=0.1", "'plain' takes options"),
        ("fisher:loss:10:ewc_lambda=20", "coupling and lambda are given already"),
        ("fisher:ewc_lambda=10", "not enough values"),
        ("synaptic:loss:1", "'synaptic' accrues"),
    ],
)
def test_options_of_another_name_or_type_are_named(spec, problem):
    with pytest.raises(ValueError, match=rf"expected settings like .*got '{spec}' .*{problem}"):
        parse_settings([spec])


@pytest.mark.parametrize(
    "spec",
    ["fisher", "fisher:loss", "fisher:loss:", "fisher:loss:1,", "fisher:loss:ten", "fisher:lost:10", "a:loss:1:2", ""],
)
def test_settings_of_another_form_are_named(spec):
    with pytest.raises(ValueError, match=rf"like 'plain', 'fisher:loss:10,30,100' .*, got '{spec}'"):
        parse_settings([spec])


@pytest.mark.parametrize("strengths", ["0", "-5", "nan", "inf", "10,10"])
def test_strengths_are_positive_finite_and_distinct(strengths):
    with pytest.raises(ValueError, match=strengths.split(",")[0]):
        parse_settings([f"fisher:loss:{strengths}"])


@pytest.mark.parametrize("method", ["plain", "pretrained"])
def test_plain_and_pretrained_take_no_strength(method):
    with pytest.raises(ValueError, match=method):
        parse_settings([f"{method}:loss:1"])
