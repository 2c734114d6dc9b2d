"""A copy of the sample database for retention runs, because other tests need the original rows.

The copy has its own name in the data map, because the erasure ledger identifies databases by this
name. Otherwise a restore of the original would erase the records that were erased in the copy.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from include.local.profile import LocalProfile
from include.policy import SHIPPED

if TYPE_CHECKING:
    from tests.e2e.conftest import Cli

NAME = "branch"
WAYBILL = 1  # the oldest waybill of the sample
SUBJECT = 227  # a customer of the sample of 300 who closed the account
# Delete all records of SUBJECT but the account, and let the contacts of a canary waybill expire.
SCRIPT = f"""
DELETE FROM consent WHERE customer_id = {SUBJECT};
UPDATE customer SET closed_at = now() - interval '1 month' WHERE customer_id = {SUBJECT};
UPDATE waybill SET delivered_at = now() - interval '100 days' WHERE waybill_id = %(marked)s;
"""


@dataclass(frozen=True)
class Retained:
    """The copy after its first retention run, and the state before it.

    Attributes:
        environment: environment variables with which commands use the copy.
        marked: id of a waybill with canary values, whose contact fields the run masks.
        backup: result of the backup before the run.
        hold: legal hold on the oldest waybill.
        request: erasure request of the data subject.
        planned: JSON output of ``retention plan`` before the run.
        run: result of the approved run.
        as_of: date for which the run disposed of records, in the pack's timezone.
    """

    environment: dict[str, str]
    marked: int
    backup: dict[str, Any]
    hold: dict[str, Any]
    request: dict[str, Any]
    planned: dict[str, Any]
    run: dict[str, Any]
    as_of: date

    @property
    def conf(self) -> tuple[str, str]:
        """Command-line arguments that let a run use the same date even after midnight."""
        return _conf(self.as_of)

    def single_value(self, cli: Cli, query: str) -> Any:
        """Return the single value of a query on the copy."""
        with psycopg.connect(cli.postgres(NAME)) as conn:
            row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def retain(cli: Cli, marked: int, pack: Path) -> Retained:
    """Back up a copy of the sample, add a hold and an erasure request, then plan and run.

    Args:
        cli: the command line.
        marked: id of a waybill with canary values.
        pack: folder for the copy's policy pack.
    """
    (pack / "datamap").mkdir(parents=True)
    for name in ("retention.yaml", "disposition.yaml"):
        shutil.copy(SHIPPED / name, pack)
    text = (SHIPPED / "datamap" / "courier.yaml").read_text(encoding="utf-8")
    for key in ("fides_key", "dataset"):
        text = text.replace(f"{key}: courier", f"{key}: {NAME}")
    (pack / "datamap" / f"{NAME}.yaml").write_text(text, encoding="utf-8")
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {NAME} TEMPLATE courier OWNER courier_owner".encode())
    with psycopg.connect(cli.postgres(NAME)) as conn:
        for statement in SCRIPT.split(";")[:-1]:
            conn.execute(statement.encode(), {"marked": marked} if "%(" in statement else None)
    owner = LocalProfile(cli.services.home).passwords["courier_owner"]
    env = {
        "AIRFLOW_CONN_CUSTOMER_DB": cli.uri(NAME, "courier_owner", owner),
        "PARCELSEAL_POLICY": str(pack),
    }
    today = cli.services.clock.now().date()
    backup = cli.json("run", "backup_offsite", **env)
    hold = cli.json(
        *("hold", "add", "waybill", f"{NAME}/{WAYBILL}", "--reason", "lawsuit", "--owner", "legal"),
        *("--case", "C-1", "--review", (today + timedelta(days=30)).isoformat()),
        **env,
    )
    request = cli.json(
        *("erasure", "add", f"{NAME}/{SUBJECT}", "--reference", "E-1", "--by", "E00007"),
        *("--received", (today - timedelta(days=1)).isoformat()),
        **env,
    )
    as_of = cli.services.clock.now().astimezone(cli.services.pack.calendar.zone).date()
    planned = cli.json("retention", "plan", "--as-of", as_of.isoformat(), **env)
    words = [*_conf(as_of), "--answer", "approve=Approve"]
    run = cli.json("run", "enforce_retention", *words, **env)
    return Retained(env, marked, backup, hold, request, planned, run, as_of)


def _conf(as_of: date) -> tuple[str, str]:
    return "--conf", json.dumps({"as_of": as_of.isoformat()})
