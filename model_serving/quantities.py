"""Quantities of Kubernetes: ``500m`` is half a core, ``512Mi`` is 536,870,912 bytes.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

_THOUSANDTH: Final = "m"
_UNITS: Final[Mapping[str, float]] = {"": 1, _THOUSANDTH: 1e-3} | {
    unit: base**power
    for base, units in ((1000.0, ("k", "M", "G", "T")), (1024.0, ("Ki", "Mi", "Gi", "Ti")))
    for power, unit in enumerate(units, start=1)
}
PATTERN: Final = rf"^([0-9]+(?:\.[0-9]+)?)({'|'.join(filter(None, _UNITS))})?$"


def amount(quantity: str) -> float:
    """A quantity as a number of cores or bytes.

    Raises:
        ValueError: if it is none.
    """
    found = re.fullmatch(PATTERN, quantity)
    if not found:
        raise ValueError(f"{quantity!r} is not a quantity")
    return float(found[1]) * _UNITS[found[2] or ""]


def _cores(quantity: str) -> str:
    if quantity[-1] not in f"{_THOUSANDTH}0123456789":
        raise ValueError("which is an amount of memory")
    return quantity


def _memory(quantity: str) -> str:
    if quantity.endswith(_THOUSANDTH):
        raise ValueError(f"which is {amount(quantity):g} bytes, because m is a thousandth")
    return quantity


def between(least: str, most: str) -> AfterValidator:
    """Refuses quantities that are smaller or larger."""

    def check(quantity: str) -> str:
        if not amount(least) <= amount(quantity) <= amount(most):
            raise ValueError(f"which is not between {least} and {most}")
        return quantity

    return AfterValidator(check)


Cores = Annotated[str, Field(pattern=PATTERN), AfterValidator(_cores), between("1m", "1000")]
"""Processor time of a pod: ``500m`` is half a core. Kubernetes knows nothing finer than ``1m``."""
Memory = Annotated[str, Field(pattern=PATTERN), AfterValidator(_memory)]
"""An amount of bytes: ``512Mi`` is 536,870,912 of them, and ``512M`` is 512,000,000."""
