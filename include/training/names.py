"""Names that the parts of `remind_training` share."""

from __future__ import annotations

from include.messages import _

CLAUSE = "6.2"
STEP_PLAN = "plan"
OVERDUE_FILE = "overdue.csv"

REMINDER = "training.reminder"  # kinds of notices
COPY = "training.copy"
DEPARTMENT = "training.department"

TOPICS = {
    "onboarding": _("onboarding"),
    "law": _("law"),
    "protection": _("protection skills"),
    "emergency": _("emergency handling"),
}
