"""Look up titles and DAG ids of workflows by the names that the evidence ledger uses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from include.registry import bundle_dag, bundle_title, workflows

__all__ = ["dag_of", "dag_of_findings", "title_of"]

title_of = bundle_title
dag_of = bundle_dag


@cache
def dag_of_findings() -> Mapping[str, str]:
    """Return, for each kind of finding, the id of the DAG whose readers may read its findings."""
    return {workflow.finding_kind: workflow.id for workflow in workflows() if workflow.finding_kind}
