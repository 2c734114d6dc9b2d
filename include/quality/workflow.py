"""Declaration of `check_quality`."""

from __future__ import annotations

from include.messages import _
from include.quality import report
from include.quality.check import CHECK
from include.workflow.declaration import AccessGroup, Cadence, Workflow

CHECK_QUALITY = Workflow[None](
    id="check_quality",
    title=_("Quality check"),
    summary="Check collected records against the policy's expectations; name failures by key; "
    "seal.",
    topic="quality",
    clauses=("4.1", "5.1"),
    cadence=Cadence.DAILY,
    owner="information_management",
    access=AccessGroup.RECORDS,
    chooses_databases=True,
    steps=(CHECK,),
    conclude=report.conclude,
)
