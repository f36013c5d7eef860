"""What a row of the tables is on the command line."""

import pytest

from ewc_hf.continual import Form, Row, parse_rows
from ewc_hf.importance import Method
from ewc_hf.penalty import Coupling


def test_rows():
    rows = parse_rows(["fisher:stabilized:52,1e2", "synaptic:plain:0.5", "mas:decoupled:7"])
    assert rows == {
        Row(Method.FISHER, Form.STABILIZED): (52.0, 100.0),
        Row(Method.SYNAPTIC, Form.PLAIN): (0.5,),
        Row(Method.MAS, Form.DECOUPLED): (7.0,),
    }
    assert [row.name for row in rows] == ["fisher:stabilized", "synaptic:plain", "mas:decoupled"]
    assert [row.form.coupling for row in rows] == [Coupling.LOSS, Coupling.LOSS, Coupling.DECOUPLED]


@pytest.mark.parametrize(
    "specification",
    ["fisher", "fisher:plain", "fisher:plain:", "fisher:plain:a", "fisher:plain:0", "fisher:plain:-1", "l2:plain:1",
     "fisher:loss:1", "fisher:plain:inf", "fisher:plain:1:2", "fisher:plain:1,,2", "fisher:plain:1,1.0"],
)  # fmt: skip
def test_refused(specification):
    with pytest.raises(ValueError, match=f"expected METHOD:FORM:LAMBDAS .*got '{specification}'"):
        parse_rows([specification])


def test_twice():
    with pytest.raises(ValueError, match=r"each row once, got 'fisher:plain' twice; give all of its lambdas in one"):
        parse_rows(["fisher:plain:1", "fisher:plain:2"])
