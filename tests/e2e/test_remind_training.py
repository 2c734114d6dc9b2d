"""Tests of `remind_training` on the sample company: its mails and its sealed result."""

from __future__ import annotations

import csv
import email
import io
import json
import re
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from tests.e2e.conftest import Cli

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def sheet(cli: Cli) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    return parsed


@pytest.fixture(scope="module")
def mails(cli: Cli, reminded: dict[str, Any]) -> list[EmailMessage]:
    """All mails to employees that the local mail server received."""
    parsed = [
        cast("EmailMessage", email.message_from_bytes(path.read_bytes(), policy=default))
        for path in sorted((cli.home / "mail").glob("*.eml"))
    ]
    staff = addresses(cli)
    return [mail for mail in parsed if parseaddr(mail["To"])[1] in staff]


def text_of(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def addresses(cli: Cli) -> dict[str, str]:
    """Return the staff numbers of employees by e-mail address."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        return dict(conn.execute("SELECT email, number FROM employee").fetchall())


def test_remind_training_run_fails_and_its_finding_contains_each_untrained_employee_with_access(
    reminded: dict[str, Any], sheet: dict[str, Any]
):
    """The findings name the employees that the answer sheet lists.

    These employees have access without training, or their course is overdue beyond the last
    reminder stage.
    """
    result = json.loads((Path(reminded["bundle"]) / "result.json").read_text())
    figures = {metric["name"]: metric["value"] for metric in result["metrics"]}
    codes = {finding["code"] for finding in result["findings"]}
    assert {"training.access_untrained", "training.beyond_ladder"} <= codes
    overdue = {tuple(row) for row in sheet["planted"]["training_overdue"]["rows"]}
    assert figures["training.overdue"] == len(overdue)
    untrained = sheet["planted"]["untrained_with_access"]["ranges"]
    [finding] = [
        finding for finding in result["findings"] if finding["code"] == "training.access_untrained"
    ]
    for first, last in untrained:
        for number in range(first, last + 1):
            assert f"E{number:05d}" in json.dumps(finding)
    states = {control["id"]: control["state"] for control in result["controls"]}
    assert states["training.before_access"] == "not_held"


def test_overdue_courses_file_lists_every_overdue_course(
    reminded: dict[str, Any], sheet: dict[str, Any]
):
    """The file has staff numbers, but no names or addresses."""
    content = (Path(reminded["bundle"]) / "overdue.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content)))
    courses = {"ONB": 1, "LAW": 2, "SKL": 3, "EMG": 4}
    parsed = {(int(row["person"][1:]), courses[row["course"]]) for row in rows}
    assert parsed == {tuple(row) for row in sheet["planted"]["training_overdue"]["rows"]}
    assert "@" not in content


def test_each_employee_with_overdue_course_gets_one_mail(
    cli: Cli, mails: list[EmailMessage], sheet: dict[str, Any]
):
    """Every employee with an overdue course gets exactly one mail."""
    numbers = addresses(cli)
    got = [numbers[parseaddr(mail["To"])[1]] for mail in mails]
    assert len(got) == len(set(got))
    overdue = {f"E{row[0]:05d}" for row in sheet["planted"]["training_overdue"]["rows"]}
    assert overdue <= set(got)
    own = {
        numbers[parseaddr(mail["To"])[1]]
        for mail in mails
        if "您应参加的培训" in text_of(mail, "plain")
    }
    with psycopg.connect(cli.postgres("courier")) as conn:
        gone = conn.execute("SELECT number FROM employee WHERE left_on < current_date").fetchall()
        away = conn.execute(
            "SELECT number FROM employee WHERE current_date BETWEEN leave_from AND leave_until"
        ).fetchall()
    assert not own & {number for (number,) in (*gone, *away)}


def test_reminder_mail_has_required_headers_and_text_and_html_parts_in_two_languages(
    mails: list[EmailMessage],
):
    """The headers prevent automatic replies."""
    assert mails
    identities = set()
    for mail in mails:
        assert mail.get_content_type() == "multipart/alternative"
        assert [part.get_content_type() for part in mail.iter_parts()] == [
            "text/plain",
            "text/html",
        ]
        for name in ("From", "To", "Subject", "Date", "Message-ID"):
            assert len(mail.get_all(name)) == 1, name
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["Content-Language"] == "zh-CN, en"
        identities.add(mail["Message-ID"])
        plain, html = text_of(mail, "plain"), text_of(mail, "html")
        for words in ("您好", "Dear", "ParcelSeal"):
            assert words in plain
            assert words in html
        assert 'lang="zh-CN"' in html
        assert 'lang="en"' in html
        assert "<script" not in html
        # people may unsubscribe from the weekly summary, but not from mails with a duty
        duty = "您应参加的培训" in plain or "您团队中" in plain
        assert ("如不希望再收到此类消息" in plain) != duty
    assert len(identities) == len(mails)


def test_training_mails_contain_no_phone_number_id_number_or_address_of_customers(
    cli: Cli, mails: list[EmailMessage]
):
    """Mails about training must not contain phone numbers, ID numbers or addresses of customers."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        rows = conn.execute("SELECT phone, id_number, email FROM customer").fetchall()
    values = {value for row in rows for value in row if value}
    for mail in mails:
        text = text_of(mail, "plain") + text_of(mail, "html") + str(mail["Subject"])
        assert not [value for value in values if value in text]
        assert not re.search(r"1[3-9]\d{9}", text)


def test_second_run_of_the_day_sends_no_mail(
    cli: Cli, reminded: dict[str, Any], mails: list[EmailMessage], any_hour: str
):
    """The second run seals evidence nevertheless."""
    before = len(list((cli.home / "mail").glob("*.eml")))
    run = cli.json("run", "remind_training", code=1, PARCELSEAL_POLICY=any_hour)
    assert run["bundle"] != reminded["bundle"]
    assert mails
    assert len(list((cli.home / "mail").glob("*.eml"))) == before
    result = json.loads((Path(run["bundle"]) / "result.json").read_text())
    figures = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert figures["notices.sent"] == 0
    assert figures["notices.deferred"] == 0


def test_xcom_and_bundle_contain_no_addresses_of_employees(cli: Cli, reminded: dict[str, Any]):
    """XCom and evidence identify employees by number. Only the outbox contains addresses."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        staff = [row[0] for row in conn.execute("SELECT email FROM employee")]
    with psycopg.connect(cli.postgres("airflow_runs")) as conn:
        kept = str(
            conn.execute("SELECT value FROM xcom WHERE dag_id = 'remind_training'").fetchall()
        )
    assert kept
    texts = [kept]
    texts += [path.read_text(errors="replace") for path in Path(reminded["bundle"]).glob("*.*")]
    assert not [name for name in staff for text in texts if name in text]
