"""The number under which a company files the report of a run."""

from __future__ import annotations

import re
from hashlib import sha256
from zoneinfo import ZoneInfo

from include.evidence.folder import bundle_path
from include.evidence.model import RunContext

_DIGEST_LENGTH = 8  # hex digits


def report_number(run: RunContext) -> str:
    """Return the number of a run's report, such as ``BACKUP-OFFSITE-20261124-5D41402A``.

    The number consists of the name of the workflow, the day on which the run started, and eight
    hex digits. The day is in the timezone of the policy pack. The hex digits are the first digits
    of the SHA-256 digest of the bundle's folder. The same run always has the same number, and the
    number can be derived again from ``result.json``.

    Args:
        run: workflow, id and start of the run.
    """
    folder = bundle_path(run.dag_id, run.run_id, run.started_at)
    digest = sha256(folder.encode()).hexdigest()[:_DIGEST_LENGTH].upper()
    workflow = re.sub(r"[^A-Z0-9]+", "-", run.dag_id.upper()).strip("-")
    day = run.started_at.astimezone(ZoneInfo(run.timezone))
    return f"{workflow}-{day:%Y%m%d}-{digest}"
