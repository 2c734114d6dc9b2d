"""Whether what was queued is still wanted: keys that nobody can read."""

from __future__ import annotations

import pytest

from include.training.notices import still_due
from include.training.standing import COPY, DEPARTMENT, REMINDER
from tests.training.rig import Rig

UNREADABLE = ["", "gone", "a/b", "E1/c/y/someday/+1", "E1/c/y/2026-03-02/soon", "a/b/c/d/e/f/g"]


@pytest.mark.parametrize("kind", [REMINDER, COPY, DEPARTMENT])
def test_a_key_that_cannot_be_read_is_not_wanted(rig: Rig, kind: str) -> None:
    """One that an older release wrote stops nobody's mail."""
    assert still_due(rig.context(), UNREADABLE, kind) == set()
