"""Tasks of `enforce_retention` that have nothing to work on."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from include.orchestration.tasks import task_of
from include.retention.steps import VERIFY
from include.retention.workflow import ENFORCE_RETENTION


def test_without_a_plan_the_count_afterwards_is_skipped() -> None:
    """The plan's own task says why it failed; this one has nothing to say, and is not repeated."""
    with pytest.raises(AirflowSkipException, match="An earlier task failed"):
        task_of(ENFORCE_RETENTION, VERIFY).function(None)
