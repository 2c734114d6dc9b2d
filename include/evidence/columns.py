"""The parts of result.json that the ledger has too."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from include.evidence.names import bundle_path


def columns_of(result_json: bytes) -> dict[str, Any]:
    """Return what a result.json shares with its row of the ledger, by column.

    Raises:
        ValueError: not a result.json.
    """
    try:
        result = json.loads(result_json)
        return {
            "dag_id": result["run"]["dag_id"],
            "run_id": result["run"]["run_id"],
            "outcome": result["outcome"],
            "controls": [control["id"] for control in result["controls"]],
            "started_at": datetime.fromisoformat(result["run"]["started_at"]),
        }
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks what every result has") from error


def is_of_folder(result_json: bytes, bundle: str) -> bool:
    """Return whether a result.json is of the run after which a bundle's folder is named.

    A copy of a genuine bundle in another run's folder has a valid signature, too.
    """
    try:
        columns = columns_of(result_json)
    except ValueError:
        return False
    return bundle == bundle_path(columns["dag_id"], columns["run_id"], columns["started_at"])


def finished_at_of(result_json: bytes) -> datetime:
    """Return when the checks of a run ended, by its result.json.

    Raises:
        ValueError: not a result.json.
    """
    try:
        finished_at = datetime.fromisoformat(json.loads(result_json)["finished_at"])
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks the moment at which it was finished") from error
    if finished_at.tzinfo is None:
        raise ValueError("the moment at which result.json was finished has no timezone")
    return finished_at
