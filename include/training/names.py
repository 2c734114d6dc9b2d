"""Names that the parts of `remind_training` share."""

from __future__ import annotations

CLAUSE = "6.2"
STEP_PLAN = "plan"
OVERDUE_FILE, WAIVED_FILE = "overdue.csv", "waived.csv"

REMINDER = "training.reminder"  # kinds of notices
COPY = "training.copy"
DEPARTMENT = "training.department"
