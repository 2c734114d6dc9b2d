"""evidence.yaml: how long evidence bundles are kept and locked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from include.policy.period import Period, PositivePeriod
from include.policy.rules import Rule
from include.policy.spans import later

# Records of sharing and entrusting stay for at least three years: Network Data Security Management
# Regulations (2025-01-01) 12. So do those of impact assessments: PIPL (2021-11-01) 56.
_LEAST = Period.parse("P3Y")
_LEAST_DAYS = 1096  # three years with a leap day
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)  # from which two periods are compared


def _days(period: Period) -> int:
    """Return the days of a period; of years rather one too few, as a leap day comes late."""
    return (later(_SOME_DAY, period, ZoneInfo("UTC")) - _SOME_DAY).days


def _long_enough(period: Period) -> Period:
    if _days(period) < _days(_LEAST):
        raise ValueError(
            "is shorter than three years (Network Data Security Management Regulations 12, PIPL 56)"
        )
    return period


class EvidenceRules(Rule):
    """evidence.yaml.

    Attributes:
        keep: how long a bundle is kept after its seal, at least three years. After it, and unless
            a legal hold is active, `enforce_retention` removes the bundle's files.
        lock_days: days for which a store that locks objects (S3 with Object Lock) refuses to delete
            a bundle, at least three years and not beyond `keep`.
    """

    keep: Annotated[PositivePeriod, AfterValidator(_long_enough)] = Period.parse("P6Y")
    lock_days: Annotated[int, Field(ge=_LEAST_DAYS, le=36_500)] = 1098

    @field_validator("lock_days")
    @classmethod
    def _not_beyond_the_term(cls, lock_days: int, info: ValidationInfo) -> int:
        keep = info.data.get("keep")
        if keep is not None and lock_days > max(_days(keep), _LEAST_DAYS):
            raise ValueError(f"the lock outlasts keep ({keep})")
        return lock_days
