"""Tests of `review_intake` from the command line: approved, rejected and refused batches."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.local.profile import LocalProfile
from include.orchestration.auto_answer import REASON
from tests.cli.test_errors import RUN_KEYS
from tests.e2e.conftest import Cli
from tests.e2e.search import Search

pytestmark = pytest.mark.airflow

APPROVED = {"promoted": 96, "set_aside": 24, "rejected": 0}


def sealed(run: dict[str, Any]) -> dict[str, Any]:
    result = json.loads((Path(run["bundle"]) / "result.json").read_text())
    assert isinstance(result, dict)
    return result


def totals(result: dict[str, Any]) -> dict[str, int]:
    completed = [step["data"] for step in result["steps"] if step["step"] == "settle"]
    return {name: sum(counts.get(name, 0) for counts in completed) for name in APPROVED}


@pytest.fixture(scope="module")
def copy(cli: Cli) -> dict[str, str]:
    """The environment variables for a copy of the sample, because other tests need the original.

    Only the connection customer_db is configured, which is therefore used to read and to write.
    """
    name = f"copy_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE courier OWNER courier_owner").format(
                sql.Identifier(name)
            )
        )
    owner = LocalProfile(cli.services.home).passwords["courier_owner"]
    return {"AIRFLOW_CONN_CUSTOMER_DB": cli.uri(name, "courier_owner", owner)}


@pytest.fixture(scope="module")
def approved(cli: Cli, copy: dict[str, str]) -> dict[str, Any]:
    """The result of the run in which the batches of the sample were approved."""
    return cli.json("run", "review_intake", "--answer", "review=Approve")


def test_approved_incoming_batches_become_formal_records_with_the_user_id_of_the_reviewer(
    cli: Cli, approved: dict[str, Any]
) -> None:
    """The command exits with 0, and the evidence names reviewers by user id."""
    assert set(approved) == RUN_KEYS
    assert (approved["state"], approved["outcome"]) == ("success", "attention")
    result = sealed(approved)
    assert totals(result) == APPROVED
    assert {control["state"] for control in result["controls"]} == {"held"}
    assert len(result["approvals"]) == 4
    for approval in result["approvals"]:
        assert approval["decision"] == "Approve"
        assert approval["decided_by"].startswith("E0")
        assert len(approval["sha256"]) == 64
    decided_late = [
        finding for finding in result["findings"] if finding["code"] == "intake.decided_late"
    ]
    assert len(decided_late) == 1
    with psycopg.connect(cli.postgres("courier")) as conn:
        (same,) = conn.execute(
            "SELECT count(*) FROM intake_record i JOIN customer c USING (customer_id) "
            "WHERE i.reviewed_at > now() - interval '1 hour' AND i.reviewed_by <> i.entered_by "
            "AND c.reviewed_at = i.reviewed_at AND c.reviewed_by = i.reviewed_by"
        ).fetchone() or (0,)
    assert same == APPROVED["promoted"]


def test_run_without_waiting_batches_passes(cli: Cli, approved: dict[str, Any]) -> None:
    """The run creates no required action and no formal record, and the control passes."""
    again = cli.json("run", "review_intake", "--answer", "each.review=approve")
    assert (again["state"], again["outcome"], again["findings"]) == ("success", "pass", 0)
    assert totals(sealed(again)) == dict.fromkeys(APPROVED, 0)


def test_rejected_batches_leave_no_formal_record(cli: Cli, copy: dict[str, str]) -> None:
    """The evidence has the reason, without the phone number that the reviewer typed."""
    reason = "review=Reject:phone 13912345678 is wrong"
    run = cli.json("run", "review_intake", "--answer", reason, **copy)
    result = sealed(run)
    assert totals(result) == {"promoted": 0, "set_aside": 0, "rejected": 120}
    assert {approval["decision"] for approval in result["approvals"]} == {"Reject"}
    reviews = [step["data"] for step in result["steps"] if step["step"] == "review"]
    assert {review["reason"] for review in reviews} == {f"{REASON} phone … is wrong"}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "required actions without an answer: each.review"),
        (["review=Maybe"], "has no option Maybe"),
    ],  # for other invalid answers, see tests/orchestration/test_human_step.py
)
def test_command_run_ends_with_exit_code_2_if_an_answer_is_missing_or_invalid(
    cli: Cli, answers: list[str], message: str
) -> None:
    """The error names the valid options in one line, and the exit code is 2."""
    words = [word for answer in answers for word in ("--answer", answer)]
    refused = cli.json("run", "review_intake", *words, code=2)
    assert message in refused["error"]
    assert refused["run_id"] is None


def test_command_run_with_option_answer_exits_with_2_outside_of_the_sample_company(
    cli: Cli,
) -> None:
    """The option --answer is only for people of the sample company."""
    password = LocalProfile(cli.services.home).passwords["parcelseal_state"]
    real = {"AIRFLOW_CONN_STATE_DB": cli.uri("parcelseal_state", "parcelseal_state", password)}
    refused = cli.json("run", "review_intake", "--answer", "review=Approve", code=2, **real)
    assert "sample company" in refused["error"]


def test_values_of_incoming_records_are_absent_from_logs_evidence_and_state_database(
    cli: Cli, approved: dict[str, Any]
) -> None:
    """The search covers logs, evidence, Airflow's database and the state database."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        values = conn.execute(
            "SELECT DISTINCT v FROM intake_record, unnest(ARRAY[name, phone, id_number, email, "
            "street]) AS v WHERE batch_id >= 'IN-000003' AND length(v) >= 8"
        ).fetchall()
    search = Search([value for (value,) in values])
    folders = [Path(approved["bundle"]), cli.home / "logs"]
    assert [counts for folder in folders for counts in search.folder(folder)] == []
    for database in ("airflow_runs", "parcelseal_state"):
        with psycopg.connect(cli.postgres(database)) as conn:
            assert list(search.tables(conn)) == []


def test_masked_sample_of_a_batch_is_stored_only_in_the_required_action(
    cli: Cli, approved: dict[str, Any]
) -> None:
    """The masked sample is created for the form. XCom, logs and evidence do not contain it."""
    mask = "＊＊＊＊"
    with psycopg.connect(cli.postgres("airflow_runs")) as conn:
        (actions,) = conn.execute(
            "SELECT count(*) FROM hitl_detail WHERE body LIKE %s", [f"%{mask}%"]
        ).fetchone() or (0,)
        assert actions >= 4
        places = {table.location for table in Search([mask]).tables(conn)}
    assert places == {"public.hitl_detail"}
    for folder in (Path(approved["bundle"]), cli.home / "logs"):
        assert list(Search([mask]).folder(folder)) == []


API = """
import json, sys
from pathlib import Path
from fastapi import HTTPException
from include.orchestration.auto_answer import REASON
from include.cli.console import output_to
from include.orchestration import auto_answer
place = {}
respond = auto_answer._respond
def told(task, user, option, form, session):
    if place:
        return respond(task, user, option, form, session)
    def status(who):
        try:
            respond(task, who, option, form, session)
        except HTTPException as error:
            return error.status_code
        return 200
    place["answers"] = [status("admin"), status("E00002"), status(user), status(user)]
auto_answer._respond = told
from include.cli import run
from include.cli.stack import local_stack, command_services
log = Path(sys.argv[1])
done = run._run(command_services(), "review_intake", {}, ["review=Approve"])
print(json.dumps(place | {"outcome": done.outcome}))
"""


def test_unassigned_user_gets_403_and_second_answer_gets_409(
    cli: Cli, copy: dict[str, str]
) -> None:
    """The test calls the function behind Airflow's PATCH .../hitlDetails during a run."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        name = f"again_{uuid.uuid4().hex[:8]}"
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER courier_owner").format(
                sql.Identifier(name),
                sql.Identifier(copy["AIRFLOW_CONN_CUSTOMER_DB"].rpartition("/")[2]),
            )
        )
    with psycopg.connect(cli.postgres(name)) as conn:
        conn.execute("UPDATE intake_record SET status = 'pending' WHERE batch_id = 'IN-000003'")
    owner = LocalProfile(cli.services.home).passwords["courier_owner"]
    log = str(cli.home / "logs" / "api.log")
    customers = cli.uri(name, "courier_owner", owner)
    completed = cli.script(API, log, AIRFLOW_CONN_CUSTOMER_DB=customers)
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout.splitlines()[-1])
    assert result["answers"] == [403, 403, 200, 409]
    assert result["outcome"] == "attention"
