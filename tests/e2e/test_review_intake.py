"""`review_intake` as people and scripts start it: approved, rejected, refused."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.local.profile import LocalProfile
from include.orchestration.answering import REASON
from tests.cli.test_errors import RUN_KEYS
from tests.e2e.conftest import Cli
from tests.e2e.search import Search

pytestmark = pytest.mark.airflow

APPROVED = {"promoted": 96, "set_aside": 24, "rejected": 0}


def sealed(run: dict[str, Any]) -> dict[str, Any]:
    found = json.loads((Path(run["bundle"]) / "result.json").read_text())
    assert isinstance(found, dict)
    return found


def totals(result: dict[str, Any]) -> dict[str, int]:
    done = [one["data"] for one in result["steps"] if one["step"] == "settle"]
    return {name: sum(one.get(name, 0) for one in done) for name in APPROVED}


@pytest.fixture(scope="module")
def copy(cli: Cli) -> dict[str, str]:
    """The environment of a copy of the courier, since the other tests want the original.

    Only customer_db is configured: it is read and written through.
    """
    name = f"copy_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE courier OWNER courier_owner").format(
                sql.Identifier(name)
            )
        )
    owner = LocalProfile(cli.place.home).passwords["courier_owner"]
    return {"AIRFLOW_CONN_CUSTOMER_DB": cli.uri(name, "courier_owner", owner)}


@pytest.fixture(scope="module")
def approved(cli: Cli, copy: dict[str, str]) -> dict[str, Any]:
    """The sample's own batches, let in once the copy is made."""
    return cli.json("run", "review_intake", "--answer", "review=Approve")


def test_approved_batches_are_let_in_and_the_evidence_says_by_whom(
    cli: Cli, approved: dict[str, Any]
) -> None:
    """Exit 0: the late batch was reviewed, and everybody is named by user id."""
    assert set(approved) == RUN_KEYS
    assert (approved["state"], approved["outcome"]) == ("success", "attention")
    result = sealed(approved)
    assert totals(result) == APPROVED
    assert {one["state"] for one in result["controls"]} == {"held"}
    assert len(result["approvals"]) == 4
    for approval in result["approvals"]:
        assert approval["decision"] == "Approve"
        assert approval["decided_by"].startswith("E0")
        assert len(approval["sha256"]) == 64
    late = [one for one in result["findings"] if one["code"] == "intake.decided_late"]
    assert len(late) == 1
    with psycopg.connect(cli.postgres("courier")) as conn:
        (same,) = conn.execute(
            "SELECT count(*) FROM intake_record i JOIN customer c USING (customer_id) "
            "WHERE i.reviewed_at > now() - interval '1 hour' AND i.reviewed_by <> i.entered_by "
            "AND c.reviewed_at = i.reviewed_at AND c.reviewed_by = i.reviewed_by"
        ).fetchone() or (0,)
    assert same == APPROVED["promoted"]


def test_without_waiting_batches_a_run_passes(cli: Cli, approved: dict[str, Any]) -> None:
    """Nobody is asked, nothing is done twice, and the control held."""
    again = cli.json("run", "review_intake", "--answer", "each.review=approve")
    assert (again["state"], again["outcome"], again["findings"]) == ("success", "pass", 0)
    assert totals(sealed(again)) == dict.fromkeys(APPROVED, 0)


def test_rejected_batches_leave_no_formal_record(cli: Cli, copy: dict[str, str]) -> None:
    """The reason stands in the evidence, without the number that somebody typed into it."""
    reason = "review=Reject:phone 13912345678 is wrong"
    run = cli.json("run", "review_intake", "--answer", reason, **copy)
    result = sealed(run)
    assert totals(result) == {"promoted": 0, "set_aside": 0, "rejected": 120}
    assert {one["decision"] for one in result["approvals"]} == {"Reject"}
    reviews = [one["data"] for one in result["steps"] if one["step"] == "review"]
    assert {one["reason"] for one in reviews} == {f"{REASON} phone … is wrong"}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "asks people (each.review)"),
        (["review=Maybe"], "has no option Maybe"),
    ],  # the other ways to answer wrongly: tests/orchestration/test_human.py
)
def test_a_run_that_would_wait_for_ever_or_was_answered_wrongly_is_refused(
    cli: Cli, answers: list[str], said: str
) -> None:
    """Before it starts: exit 2, one line, and what to write."""
    words = [word for one in answers for word in ("--answer", one)]
    refused = cli.json("run", "review_intake", *words, code=2)
    assert said in refused["error"]
    assert refused["run_id"] is None


def test_nobody_is_answered_for_on_a_real_state_database(cli: Cli) -> None:
    """--answer speaks for the sample company's people only."""
    password = LocalProfile(cli.place.home).passwords["parcelseal_state"]
    real = {"AIRFLOW_CONN_STATE_DB": cli.uri("parcelseal_state", "parcelseal_state", password)}
    refused = cli.json("run", "review_intake", "--answer", "review=Approve", code=2, **real)
    assert "sample company" in refused["error"]


def test_no_value_of_an_incoming_record_gets_out(cli: Cli, approved: dict[str, Any]) -> None:
    """Not in a log, the evidence, XCom, the question in Airflow's database, or the state."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        values = conn.execute(
            "SELECT DISTINCT v FROM intake_record, unnest(ARRAY[name, phone, id_number, email, "
            "street]) AS v WHERE batch_id >= 'IN-000003' AND length(v) >= 8"
        ).fetchall()
    search = Search([value for (value,) in values])
    folders = [Path(approved["bundle"]), cli.home / "logs"]
    assert [one for folder in folders for one in search.folder(folder)] == []
    for database in ("airflow_runs", "parcelseal_state"):
        with psycopg.connect(cli.postgres(database)) as conn:
            assert list(search.tables(conn)) == []


def test_the_masked_sample_is_in_the_question_and_nowhere_else(
    cli: Cli, approved: dict[str, Any]
) -> None:
    """It is made when it is asked for, and XCom, logs and evidence have none of it."""
    mask = "＊＊＊＊"
    with psycopg.connect(cli.postgres("airflow_runs")) as conn:
        (questions,) = conn.execute(
            "SELECT count(*) FROM hitl_detail WHERE body LIKE %s", [f"%{mask}%"]
        ).fetchone() or (0,)
        assert questions >= 4
        places = {one.place for one in Search([mask]).tables(conn)}
    assert places == {"public.hitl_detail"}
    for folder in (Path(approved["bundle"]), cli.home / "logs"):
        assert list(Search([mask]).folder(folder)) == []


API = """
import json, sys
from pathlib import Path
from fastapi import HTTPException
from include.orchestration.answering import REASON
from include.cli.console import output_to
from include.orchestration import answering
place = {}
respond = answering._respond
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
answering._respond = told
from include.cli import run
from include.cli.stack import local_stack, workplace
log = Path(sys.argv[1])
done = run._run(workplace(), "review_intake", {}, ["review=Approve"])
print(json.dumps(place | {"outcome": done.outcome}))
"""


def test_who_is_not_asked_gets_403_and_a_second_answer_409(cli: Cli, copy: dict[str, str]) -> None:
    """By the function behind Airflow's PATCH .../hitlDetails, in the midst of a run."""
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
    owner = LocalProfile(cli.place.home).passwords["courier_owner"]
    log = str(cli.home / "logs" / "api.log")
    customers = cli.uri(name, "courier_owner", owner)
    done = cli.script(API, log, AIRFLOW_CONN_CUSTOMER_DB=customers)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answers"] == [403, 403, 200, 409]
    assert found["outcome"] == "attention"
