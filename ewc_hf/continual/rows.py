"""The rows of the paper's tables: an importance, and how the penalty acts with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ..importance import Method
from ..penalty import Coupling

_METHODS = (Method.FISHER, Method.MAS, Method.SYNAPTIC, Method.SIGNAL)


class Form(Enum):
    """How the penalty acts."""

    PLAIN = "plain"
    """Its gradient is added to the loss's: the penalty as Kirkpatrick et al. 2017 wrote it."""

    STABILIZED = "stabilized"
    """The same with the importance `Omega / (1 + alpha lambda Omega)`, `alpha` the learning rate: the paper's."""

    DECOUPLED = "decoupled"
    """A proximal step follows the optimizer's."""

    @property
    def coupling(self) -> Coupling:
        """Of the penalty."""
        return Coupling("decoupled" if self is Form.DECOUPLED else "loss")


@dataclass(frozen=True)
class Row:
    """What protects a run.

    Attributes:
        method: whose importance.
        form: how the penalty acts with it.
    """

    method: Method
    form: Form

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return f"{self.method.value}:{self.form.value}"


def parse_rows(specifications: Sequence[str]) -> dict[Row, tuple[float, ...]]:
    """Return rows and their lambdas, of `METHOD:FORM:LAMBDAS` such as `fisher:stabilized:52,85,110`.

    Raises:
        ValueError: another form, an unknown method or form, a lambda that is not positive, or what comes twice.
    """
    rows: dict[Row, tuple[float, ...]] = {}
    for specification in specifications:
        row, lambdas = _parse(specification)
        if row in rows:
            raise ValueError(f"expected each row once, got '{row.name}' twice; give all of its lambdas in one")
        rows[row] = lambdas
    return rows


def _parse(specification: str) -> tuple[Row, tuple[float, ...]]:
    methods, forms = "|".join(method.value for method in _METHODS), "|".join(form.value for form in Form)
    match = re.fullmatch(rf"({methods}):({forms}):([^:]+)", specification)
    try:
        lambdas = tuple(float(number) for number in match[3].split(",")) if match else ()
    except ValueError:
        lambdas = ()
    distinct = len(set(lambdas)) == len(lambdas) > 0
    if not match or not distinct or not all(0 < number < float("inf") for number in lambdas):
        raise ValueError(
            f"expected METHOD:FORM:LAMBDAS with a method of {methods}, a form of {forms} and other lambdas > 0, as "
            f"'fisher:stabilized:52,85', got '{specification}'"
        )
    return Row(Method(match[1]), Form(match[2])), lambdas
