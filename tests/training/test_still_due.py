"""Tests of notification keys that cannot be parsed."""

from __future__ import annotations

import pytest

from include.training.notifications import still_due
from include.training.training_status import COPY, DEPARTMENT, REMINDER
from tests.training.training_fixtures import TrainingCompany

UNREADABLE = ["", "gone", "a/b", "E1/c/y/someday/+1", "E1/c/y/2026-03-02/soon", "a/b/c/d/e/f/g"]


@pytest.mark.parametrize("kind", [REMINDER, COPY, DEPARTMENT])
def test_still_due_omits_notifications_whose_key_cannot_be_parsed(
    company: TrainingCompany, kind: str
) -> None:
    assert still_due(company.context(), UNREADABLE, kind) == set()
