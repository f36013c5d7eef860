import dataclasses
import json
import math

import pytest
from transformers import TrainingArguments

from ewc_hf import Coupling, EWCConfig, EWCFields
from ewc_hf.config import StateDtype
from ewc_hf.importance import Method


def config(**options):
    return EWCConfig("out", use_cpu=True, report_to="none", **options)


@pytest.mark.parametrize("make", [EWCFields, config], ids=["alone", "with TrainingArguments"])
@pytest.mark.parametrize("name", ["ewc_lambda", "ewc_alpha", "rehearsal_weight"])
@pytest.mark.parametrize("value", [-1.0, -1e-9, math.nan, math.inf, -math.inf])
def test_a_strength_is_finite_and_not_negative(make, name, value):
    with pytest.raises(ValueError, match=rf"expected {name} to be a finite number >= 0, got {value}"):
        make(**{name: value})


@pytest.mark.parametrize("make", [EWCFields, config], ids=["alone", "with TrainingArguments"])
def test_zero_is_allowed(make):
    options = make(ewc_lambda=0, ewc_alpha=0.0)
    assert (options.ewc_lambda, options.ewc_alpha) == (0, 0.0)


@pytest.mark.parametrize("make", [EWCFields, config], ids=["alone", "with TrainingArguments"])
def test_an_unknown_coupling_names_the_known_ones(make):
    with pytest.raises(ValueError, match=r"penalty is not a valid .*'loss', 'decoupled'"):
        make(ewc_coupling="penalty")


def test_an_unknown_dtype_names_the_known_ones():
    with pytest.raises(ValueError, match=r"int8 is not a valid .*'float32', 'bfloat16'"):
        EWCFields(ewc_state_dtype="int8")


@pytest.mark.parametrize("given", ["loss", Coupling.LOSS])
def test_a_coupling_is_given_by_name_or_member(given):
    assert EWCFields(ewc_coupling=given).ewc_coupling is Coupling.LOSS
    assert config(ewc_coupling=given).ewc_coupling is Coupling.LOSS


@pytest.mark.parametrize("options", [{"rehearsal_rows": 0}, {"rehearsal_rows": -1}, {"rehearsal_weight": None}])
def test_rehearsal_needs_a_weight_and_a_row(options):
    with pytest.raises(ValueError, match=r"expected a rehearsal_weight and rehearsal_rows >= 1, got .* switches"):
        EWCFields(**options)


def test_the_fields_stand_alone():
    fields = EWCFields()
    assert dataclasses.asdict(fields) == {
        "ewc_lambda": None,
        "ewc_coupling": None,
        "ewc_stabilized": True,
        "ewc_alpha": None,
        "ewc_state_dtype": StateDtype.FLOAT32,
        "ewc_offload": False,
        "ewc_allow_change": False,
        "rehearsal_weight": 1.0,
        "rehearsal_rows": 2,
        "max_forgetting": None,
        "ewc_synaptic": False,
    }
    assert not isinstance(fields, TrainingArguments)


NATS, OTHER_UNITS = Method.FISHER.unit, sorted({method.unit for method in Method} - {Method.FISHER.unit})


@pytest.mark.parametrize(("given", "expected"), [(None, 30.0), (0.0, 0.0), (2.5, 2.5)])
def test_lambda_in_nats_has_a_default(given, expected):
    assert EWCFields(ewc_lambda=given).lambda_in(NATS) == expected


@pytest.mark.parametrize("unit", [*OTHER_UNITS, "furlongs"])
def test_lambda_in_another_unit_has_to_be_given(unit):
    assert EWCFields(ewc_lambda=2.5).lambda_in(unit) == 2.5
    measured = r"measured to work: 100 for EWC \(MAS\), 0\.01 for L2 to start"
    with pytest.raises(ValueError, match=f"expected ewc_lambda for an importance in '{unit}', got None.*{measured}"):
        EWCFields().lambda_in(unit)


@pytest.mark.parametrize("make", [EWCFields, config], ids=["alone", "with TrainingArguments"])
def test_a_strength_may_be_text_as_a_learning_rate_may(make):
    options = make(ewc_lambda="3e1", ewc_alpha="5e-4")
    assert (options.ewc_lambda, options.ewc_alpha) == (30.0, 5e-4)
    with pytest.raises(ValueError, match="expected ewc_lambda to be a finite number >= 0, got thirty"):
        make(ewc_lambda="thirty")


def test_every_field_is_documented():
    assert all(field.metadata["help"].endswith(".") for field in dataclasses.fields(EWCFields))


def test_training_arguments_keep_their_order_and_their_checks():
    args = config(learning_rate=1e-3)
    assert isinstance(args, EWCFields) and isinstance(args, TrainingArguments)
    assert args.output_dir == "out"
    names, stock = ([field.name for field in dataclasses.fields(kind)] for kind in (EWCConfig, TrainingArguments))
    assert names[: len(stock)] == stock
    with pytest.raises(ValueError, match="sometimes"):
        config(save_strategy="sometimes")


def test_it_is_written_as_json():
    args = config(ewc_coupling="loss", ewc_lambda=10.0, ewc_alpha=0.1)
    assert args.to_dict()["ewc_coupling"] == "loss"
    written = json.loads(args.to_json_string())
    assert {key: value for key, value in written.items() if key.startswith("ewc_")} == {
        "ewc_lambda": 10.0,
        "ewc_coupling": "loss",
        "ewc_stabilized": True,
        "ewc_alpha": 0.1,
        "ewc_state_dtype": "float32",
        "ewc_offload": False,
        "ewc_allow_change": False,
        "ewc_synaptic": False,
    }


def test_it_is_replaced_and_checked_again():
    args = config(ewc_lambda=10.0)
    changed = dataclasses.replace(args, ewc_lambda=3.0, ewc_coupling="loss", seed=7)
    assert (changed.ewc_lambda, changed.ewc_coupling, changed.seed) == (3.0, Coupling.LOSS, 7)
    assert args.ewc_lambda == 10.0
    with pytest.raises(ValueError, match="ewc_lambda"):
        dataclasses.replace(args, ewc_lambda=-3.0)
