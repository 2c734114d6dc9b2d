"""Names of clause, findings, bundles and files of audits by samples."""

from __future__ import annotations

CLAUSE = "6.1"
FINDINGS = "audit"  # their kind in the register
NOTICE = "audit.finding"  # kind of the notices to their owners
COMMITMENT_WORKFLOW = "sample_commitment"  # of the bundle that is sealed before the seed is known
COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE = "commitment.json", "seed.json", "workpapers.xlsx"


def stage_file(part: str) -> str:
    """Return the name of the workpapers of a later stage in a bundle."""
    return f"workpapers-{part}.xlsx"


def verdict_file(part: str) -> str:
    """Return the name of the file with the verdicts on workpapers in a bundle."""
    return f"verdicts-{part}.json"


def answers_file(part: str) -> str:
    """Return the name of the file with auditors' answers in a bundle."""
    return f"answers-{part}.json"


def frame_file(population: str) -> str:
    """Return the name of a frozen frame in a bundle."""
    return f"frames/{population}.tsv"


def sample_file(population: str) -> str:
    """Return the name of a drawn sample in a bundle."""
    return f"samples/{population}.json"
