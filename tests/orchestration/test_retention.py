"""Tasks of `enforce_retention` that have nothing to work on."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from include.orchestration.tasks import task_of
from include.retention.steps import VERIFY
from include.retention.workflow import ENFORCE_RETENTION


def test_task_verify_is_skipped_if_the_run_has_no_disposition_plan() -> None:
    """The task `plan` has failed and reports its failure itself."""
    with pytest.raises(AirflowSkipException, match="An earlier task failed"):
        task_of(ENFORCE_RETENTION, VERIFY).function(None)
