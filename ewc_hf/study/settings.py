"""What a study compares: a method, its coupling and its strength."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..importance import Method
from ..penalty import Coupling
from .records import PLAIN

L2 = "l2"


@dataclass(frozen=True)
class Setting:
    """One way to fine-tune: `plain`, or a method with its coupling and strength."""

    method: str
    coupling: str | None = None
    ewc_lambda: float = 0.0

    @property
    def name(self) -> str:
        """What the runs of this setting are called in the report."""
        return self.method if self.coupling is None else f"{self.method}-{self.coupling}-{self.ewc_lambda:.12g}"


def parse_settings(specs: Sequence[str]) -> list[Setting]:
    """Read settings such as `plain` and `fisher:loss:10,30,100`; `plain` is added where it is missing.

    Raises:
        ValueError: a setting of another form, an unknown method or coupling, a strength that is no positive number,
            or a setting that comes twice.
    """
    settings = [Setting(PLAIN)]
    for spec in specs:
        if spec == PLAIN:
            continue
        try:
            method, coupling, strengths = spec.split(":")
            parsed = [Setting(method, Coupling(coupling).value, float(number)) for number in strengths.split(",")]
            if method != L2:
                Method(method)
            if not all(0 < setting.ewc_lambda < math.inf for setting in parsed):
                raise ValueError("strengths are finite and greater than 0")
        except ValueError as error:
            raise ValueError(
                f"expected settings like 'plain' or 'fisher:loss:10,30,100', got '{spec}' ({error})"
            ) from error
        settings += parsed
    names = [setting.name for setting in settings]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each setting once, got {names}; leave the repeated ones out")
    return settings
