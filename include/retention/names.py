"""Names that the steps of `enforce_retention` share."""

from __future__ import annotations

CLAUSE = "5.3"
STEP_PLAN, STEP_APPROVE, STEP_EXECUTE, STEP_VERIFY = "plan", "approve", "execute", "verify"
KIND = "retention"
