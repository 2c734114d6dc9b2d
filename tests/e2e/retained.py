"""A copy of the sample database that retention runs on, since other tests want the original's rows.

The copy has a name of its own in the data map: the erasure ledger goes by that name, and a restore
of the original must not find its records erased.
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
WAYBILL = 1  # the sample's oldest
SUBJECT = 227  # who closed the account in the sample of 300 customers
# The subject has nothing left but the account; the contacts of a marked waybill expire.
SCRIPT = f"""
DELETE FROM consent WHERE customer_id = {SUBJECT};
UPDATE customer SET closed_at = now() - interval '1 month' WHERE customer_id = {SUBJECT};
UPDATE waybill SET delivered_at = now() - interval '100 days' WHERE waybill_id = %(marked)s;
"""


@dataclass(frozen=True)
class Retained:
    """The copy after its first run, and what was there before.

    Attributes:
        environment: points every command at the copy.
        marked: a waybill with marked values whose contacts the run masks.
        backup: restore point from before the run.
        hold: on the oldest waybill.
        request: of the subject.
        planned: what ``retention plan`` said before the run.
        run: approved.
        as_of: day for which all of this was done, in the pack's timezone.
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
        """Words for a run for that day: no test meets midnight."""
        return _conf(self.as_of)

    def one(self, cli: Cli, query: str) -> Any:
        """Ask the copy for one value."""
        with psycopg.connect(cli.postgres(NAME)) as conn:
            row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def retain(cli: Cli, marked: int, pack: Path) -> Retained:
    """Copy, back up, hold, request, look ahead and run.

    Args:
        cli: of the sample's home.
        marked: a waybill with marked values.
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
    owner = LocalProfile(cli.place.home).passwords["courier_owner"]
    env = {
        "AIRFLOW_CONN_CUSTOMER_DB": cli.uri(NAME, "courier_owner", owner),
        "PARCELSEAL_POLICY": str(pack),
    }
    today = cli.place.clock.now().date()
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
    as_of = cli.place.clock.now().astimezone(cli.place.pack.calendar.zone).date()
    planned = cli.json("retention", "plan", "--as-of", as_of.isoformat(), **env)
    words = [*_conf(as_of), "--answer", "approve=Approve"]
    run = cli.json("run", "enforce_retention", *words, **env)
    return Retained(env, marked, backup, hold, request, planned, run, as_of)


def _conf(as_of: date) -> tuple[str, str]:
    return "--conf", json.dumps({"as_of": as_of.isoformat()})
