"""Names that the modules of this room share."""

from __future__ import annotations

CLAUSE = "6.1"
STEP_AUDIT, STEP_FREEZE, STEP_COMMIT, STEP_SEED, STEP_DRAW = (
    "audit",
    "freeze",
    "commit",
    "seed",
    "draw",
)
COMMITMENT_WORKFLOW = "sample_commitment"  # of the bundle that is sealed before the seed is known
COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE = "commitment.json", "seed.json", "workpapers.xlsx"


def frame_file(population: str) -> str:
    """Name of a frozen frame in a bundle."""
    return f"frames/{population}.tsv"


def sample_file(population: str) -> str:
    """Name of a drawn sample in a bundle."""
    return f"samples/{population}.json"
