"""The run that checks, as every part of the check knows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys


@dataclass(frozen=True)
class Run:
    """The run that checks.

    Attributes:
        state: the state database.
        keys: for keys of records that are personal themselves.
        full: examine all records.
        purposes: whether the pack says for which purposes the database's fields are collected.
        timezone: IANA name of the pack's timezone.
    """

    dag_id: str
    run_id: str
    at: datetime
    state: Engine
    keys: ErasureKeys
    full: bool = False
    purposes: bool = False
    timezone: str = "UTC"
