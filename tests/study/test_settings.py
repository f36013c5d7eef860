import pytest

from ewc_hf.importance import Method
from ewc_hf.study import Setting, parse_settings
from ewc_hf.study.ways import Way


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        ([], ["plain"]),
        (["plain"], ["plain"]),
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
    expected = Setting("fisher-decoupled-2.5", Way.PENALTY, Method.FISHER, overrides=overrides)
    assert parse_settings(["fisher:decoupled:2.5"])[1] == expected


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
    with pytest.raises(ValueError, match=rf"like 'plain', 'fisher:loss:10,30,100', .*, got '{spec}'"):
        parse_settings([spec])


@pytest.mark.parametrize("strengths", ["0", "-5", "nan", "inf", "10,10"])
def test_strengths_are_positive_finite_and_distinct(strengths):
    with pytest.raises(ValueError, match=strengths.split(",")[0]):
        parse_settings([f"fisher:loss:{strengths}"])


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf"])
def test_budgets_are_positive_and_finite(budget):
    with pytest.raises(ValueError, match="a budget is finite and greater than 0"):
        parse_settings([f"plain:max_forgetting={budget}"])


@pytest.mark.parametrize("method", ["plain", "pretrained"])
def test_plain_and_pretrained_take_no_strength(method):
    with pytest.raises(ValueError, match=method):
        parse_settings([f"{method}:loss:1"])


@pytest.mark.parametrize("strengths", ["rehearsal", "rehearsal:0", "replay:-0.1", "lwf:1:2", "lora:", "dft:1"])
def test_other_ways_take_the_strengths_that_they_need(strengths):
    with pytest.raises(ValueError, match=f"got '{strengths}'"):
        parse_settings([strengths])


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("rehearsal:1:ewc_lambda=3", "'rehearsal' takes one list of strengths, and options of the training"),
        ("dft:rehearsal_top_k=3", "rehearsal_top_k would change nothing here"),
        ("plain:rehearsal_tokens=3", "rehearsal_tokens would change nothing here"),
        ("plain:rehearsal_weight=3", "rehearsal_weight would change nothing here"),
        ("lora:8:rehearsal_weight=3:rehearsal_rows=1", "rehearsal_weight, rehearsal_rows would change nothing"),
        ("fisher:loss:3:rehearsal_rows=1", "rehearsal_rows would change nothing here"),
        ("replay:0.25:rehearsal_weight=3", "rehearsal_weight would change nothing here"),
        ("self_replay:0.25:rehearsal_top_k=3", "rehearsal_top_k would change nothing here"),
        ("rehearsal:1:rehearsal_weight=3", "rehearsal_weight would change nothing here, or is given already"),
        ("old_answers:1:rehearsal_weight=3", "or is given already"),
        ("old_answers:1:rehearsal_temperature=0.5", "rehearsal_temperature would change nothing here"),
        ("penalty:1", "penalty is not a valid Method"),
        ("rehearsal:1:num_examples=3", "'num_examples' is no option"),
        ("lora:2.5", "a rank is a whole number"),
        ("replay:0.5:lora_rank=8", "lora_rank is at least 1, beside a penalty or rehearsal"),
        ("fisher:decoupled:1:lora_rank=2", "low-rank adapters are held by the coupling 'loss' only"),
        ("rehearsal:1:lora_rank=0", "lora_rank is at least 1, beside a penalty or rehearsal"),
        ("rehearsal:1:importance_from=own", "importance_from is 'own', beside a penalty whose importance reads text"),
        ("l2:loss:1:importance_from=own", "importance_from is 'own', beside a penalty whose importance reads text"),
        ("fisher:loss:1:importance_from=old", "importance_from is 'own', beside a penalty whose importance"),
        ("replay:1", "a share is less than 1"),
        ("self_replay:0.5,1.5", "a share is less than 1"),
    ],
)
def test_what_a_way_has_no_use_for_is_named(spec, problem):
    with pytest.raises(ValueError, match=problem):
        parse_settings([spec])


def test_plain_comes_first_and_may_be_interpolated():
    settings = parse_settings(["rehearsal:1", "plain:interpolated"])
    assert [(setting.name, setting.interpolated) for setting in settings] == [("plain", True), ("rehearsal-1", False)]


@pytest.mark.parametrize(
    ("spec", "point", "line"),
    [
        ("rehearsal:0.3", ("self-rehearsal", 0.3, "0.3"), "self-rehearsal 0.3, interpolated"),
        ("old_answers:1", ("old answers to old text", 1, "1"), None),
        ("rehearsal:1:rehearsal_top_k=8", ("self-rehearsal, rehearsal_top_k=8", 1, "1"), None),
        ("lwf:2", ("learning without forgetting", 2, "2"), None),
        ("replay:0.25", ("replay of old text", 0.25, "0.25"), None),
        ("self_replay:0.25", ("replay of own text", 0.25, "0.25"), None),
        ("lora:8", None, "LoRA, rank 8, interpolated"),
        ("plain:weight_decay=0.1", None, "plain, weight_decay=0.1, interpolated"),
        ("dft:weight_decay=0.1", None, "DFT, weight_decay=0.1, interpolated"),
        (
            "fisher:decoupled:10:rehearsal_weight=3:rehearsal_top_k=8",
            ("EWC (Fisher), decoupled 10 + self-rehearsal, rehearsal_top_k=8", 3, "3"),
            None,
        ),
        ("lora:8:learning_rate=2e-3", ("LoRA, rank 8", 500, "0.002"), None),
        ("rehearsal:1:lora_rank=8", ("self-rehearsal, lora_rank=8", 1, "1"), None),
        ("fisher:loss:10:lora_rank=8", ("EWC (Fisher), loss, lora_rank=8", 10, "10"), None),
        ("mas:loss:10:importance_from=own", ("EWC (MAS), loss, importance_from=own", 10, "10"), None),
        ("plain:max_forgetting=0.05", ("plain, to a budget", 20, "0.05"), "plain, to a budget 0.05, interpolated"),
        ("rehearsal:1:max_forgetting=0.5", ("self-rehearsal 1, to a budget", 2, "0.5"), None),
        ("fisher:loss:3:max_forgetting=0.5", ("EWC (Fisher), loss 3, to a budget", 2, "0.5"), None),
        ("plain:max_steps=50", ("fewer steps", 0.02, "50"), None),
        ("dft", None, "DFT, interpolated"),
        ("fisher:loss:10", ("EWC (Fisher), loss", 10, "10"), "EWC (Fisher), loss 10, interpolated"),
        (
            "fisher:decoupled:10:rehearsal_weight=3",
            ("EWC (Fisher), decoupled 10 + self-rehearsal", 3, "3"),
            "EWC (Fisher), decoupled 10 + self-rehearsal 3, interpolated",
        ),
    ],
)
def test_a_setting_lies_on_a_curve_and_begins_a_line(spec, point, line):
    (setting,) = parse_settings([spec])[1:]
    assert setting.point == point
    assert line is None or setting.line == line


def test_a_penalty_beside_rehearsal_has_a_colour_of_its_own():
    settings = parse_settings(["fisher:loss:3", "rehearsal:1", "fisher:loss:3:rehearsal_weight=1,2"])
    assert [setting.family for setting in settings[1:]] == ["fisher", "rehearsal", *["fisher + rehearsal"] * 2]


@pytest.mark.parametrize(
    ("spec", "needs"),
    [
        ("fisher:loss:1", True),
        ("l2:loss:1", False),
        ("rehearsal:1", False),
        ("old_answers:1", True),
        ("replay:0.1", True),
        ("self_replay:0.1", False),
        ("lwf:1", False),
        ("fisher:loss:1:rehearsal_weight=1", True),
    ],
)
def test_what_needs_old_text_says_so(spec, needs):
    assert parse_settings([spec])[1].needs_old_text is needs
