"""A request for customer information with commands: approval, extract, end and proof."""

from __future__ import annotations

import json
import re
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.conftest import Cli, Used

pytestmark = pytest.mark.airflow

PASSWORD = re.compile(r"(?:[2-9A-HJ-NP-Z]{4}-){5}[2-9A-HJ-NP-Z]{4}")


def steps(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results in the sealed bundle of a run, by step."""
    sealed = json.loads((Path(run["bundle"]) / "result.json").read_text())
    return {step["step"]: step["data"] for step in sealed["steps"]}


def test_extract_is_delivered_after_two_approvals_of_other_people(cli: Cli, used: Used) -> None:
    assert (used.run["state"], used.run["outcome"]) == ("success", "attention")  # mail to files
    results = steps(used.run)
    assert results["approve"]["decided_by"] == "E00001"
    assert results["approve_second"]["decided_by"] not in ("E00001", "E00011")
    with psycopg.connect(cli.postgres("courier")) as conn:
        assert conn.execute("SELECT count(*) FROM customer").fetchone() == (used.prepared["rows"],)
    assert results["deliver"]["records"] == used.prepared["rows"]
    assert used.file.stat().st_size == results["deliver"]["size"]


def test_list_shows_the_grant_and_its_openings(cli: Cli, used: Used) -> None:
    (row,) = [
        row
        for row in cli.json("access", "list")["grants"]
        if row["request"] == used.prepared["request"]
    ]
    assert (row["requester"], row["purpose"], row["delivery"]) == ("E00011", "delivery", "zip")
    assert row["openings"] == 1
    assert row["approved_at"] < row["expires_at"]


def test_other_person_cannot_open_the_extract(cli: Cli, used: Used, tmp_path: Path) -> None:
    number = str(used.prepared["request"])
    other = tmp_path / "other.zip"
    error = cli.json("access", "open", number, "--by", "E00001", "--out", str(other), code=2)
    assert "no extract of request" in error["error"]
    assert not other.exists()
    error = cli.json("access", "open", number, "--by", "E00011", "--out", str(used.file), code=2)
    assert "exists already" in error["error"]
    grants = cli.json("access", "list")["grants"]
    assert [row["openings"] for row in grants if str(row["request"]) == number] == [1]


def test_ended_extract_is_deleted_and_the_evidence_proves_it(
    cli: Cli, used: Used, tmp_path: Path
) -> None:
    number = str(used.prepared["request"])
    cli.json("access", "end", number, "--by", "E00003")
    out = str(tmp_path / "late.zip")
    assert (
        "cannot be opened"
        in cli.json("access", "open", number, "--by", "E00011", "--out", out, code=2)["error"]
    )
    run = json.loads(cli.call("run", "expire_grants", "--json").stdout)
    results = steps(run)
    assert [grant["request"] for grant in results["expire"]["ended"]] == [int(number)]
    proof = results["verify"]
    assert (proof["remaining"], proof["missing"], proof["unapproved"]) == ([], [], [])
    assert (proof["proved"], proof["listed"], proof["checked"]) == (1, 0, 1)
    assert not [path for path in (cli.home / "extracts").rglob("*") if path.is_file()]


def test_request_with_a_field_outside_the_purpose_is_refused(cli: Cli, used: Used) -> None:
    refused = cli.json(
        *("access", "request", "--by", "E00011", "--purpose", "delivery", "--days", "2"),
        *("--collection", "courier.customer", "--case", "CS-2", "--code", "status=active"),
        *("--field", "name", "--field", "id_number"),
        code=1,
    )
    assert (refused["state"], refused["refused_fields"]) == ("refused", ["id_number"])


def test_keys_of_a_file_with_wrong_encoding_are_refused_with_the_line(
    cli: Cli, used: Used, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_bytes(b"1\n2\n" + "客户".encode("gb18030"))
    error = cli.json(
        *("access", "request", "--by", "E00011", "--purpose", "delivery", "--days", "2"),
        *("--collection", "courier.customer", "--case", "CS-3", "--field", "name"),
        *("--keys", f"customer_id={keys}"),
        code=2,
    )
    assert "line 3: the file is not UTF-8" in error["error"]


def _password(folder: Path, request: int) -> str:
    """Return the password in the newest mail about the login of a request."""
    for path in sorted(folder.glob("*.eml"), key=lambda file: file.stat().st_mtime, reverse=True):
        mail = message_from_bytes(path.read_bytes(), policy=default)
        body = mail.get_body(("plain",))
        text = body.get_content() if body is not None else ""
        if f"request {request} " in text and (password := PASSWORD.search(text)):
            return password[0]
    raise AssertionError(f"no mail with the password of request {request}")


def test_login_reads_the_sample_until_the_access_ends(cli: Cli, tmp_path: Path) -> None:
    prepared = cli.json(
        *("access", "request", "--by", "E00011", "--purpose", "delivery", "--days", "2"),
        *("--collection", "courier.customer", "--case", "CS-4", "--form", "login"),
        *("--field", "customer_id", "--field", "phone", "--code", "status=dormant"),
    )
    number = str(prepared["request"])
    answers = ("--answer", "approve=Approve", "--answer", "approve_second=Approve")
    conf = json.dumps({"request": prepared["request"]})
    run = cli.json("run", "use_information", "--conf", conf, *answers)
    assert run["state"] == "success", run
    out = tmp_path / "login.txt"
    cli.json("access", "open", number, "--by", "E00011", "--out", str(out))
    user = steps(run)["deliver"]["object_key"]
    assert user in out.read_text(encoding="utf-8")
    password = _password(cli.home / "mail", prepared["request"])
    with psycopg.connect(cli.postgres("courier"), user=user, password=password) as session:
        rows = session.execute("SELECT customer_id, phone FROM customer ORDER BY 1").fetchall()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT phone FROM public.customer")
    with psycopg.connect(cli.postgres("courier")) as conn:
        phones = dict(
            conn.execute("SELECT customer_id, phone FROM customer WHERE status = 'dormant'")
        )
    assert [key for key, _phone in rows] == sorted(phones)
    assert len(rows) == prepared["rows"]
    assert all(masked != phones[key] and "*" in masked for key, masked in rows if phones[key])
    cli.json("access", "end", number, "--by", "E00003")
    ended = json.loads(cli.call("run", "expire_grants", "--json").stdout)
    assert steps(ended)["verify"]["remaining"] == []
    with psycopg.connect(cli.postgres("courier")) as conn:
        assert conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [user]).fetchall() == []
        assert conn.execute("SELECT to_regnamespace(%s)", [user]).fetchone() == (None,)
