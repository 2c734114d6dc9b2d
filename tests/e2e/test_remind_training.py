"""`remind_training` on the sample company: who is told what, by real mail, and what is sealed."""

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
    found: dict[str, Any] = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    return found


@pytest.fixture(scope="module")
def mails(cli: Cli, reminded: dict[str, Any]) -> list[EmailMessage]:
    """Every mail to people of the company that the server took, parsed."""
    found = [
        cast("EmailMessage", email.message_from_bytes(one.read_bytes(), policy=default))
        for one in sorted((cli.home / "mail").glob("*.eml"))
    ]
    staff = addresses(cli)
    return [one for one in found if parseaddr(one["To"])[1] in staff]


def text_of(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def addresses(cli: Cli) -> dict[str, str]:
    """Staff numbers by mail address."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        return dict(conn.execute("SELECT email, number FROM employee").fetchall())


def test_the_run_is_red_for_what_is_planted(reminded: dict[str, Any], sheet: dict[str, Any]):
    """Access without training and people beyond the ladder, as the answer sheet has them."""
    result = json.loads((Path(reminded["bundle"]) / "result.json").read_text())
    figures = {one["name"]: one["value"] for one in result["metrics"]}
    codes = {one["code"] for one in result["findings"]}
    assert {"training.access_untrained", "training.beyond_ladder"} <= codes
    late = {tuple(one) for one in sheet["planted"]["training_overdue"]["rows"]}
    assert figures["training.overdue"] == len(late)
    untrained = sheet["planted"]["untrained_with_access"]["ranges"]
    [finding] = [one for one in result["findings"] if one["code"] == "training.access_untrained"]
    for first, last in untrained:
        for number in range(first, last + 1):
            assert f"E{number:05d}" in json.dumps(finding)
    states = {one["id"]: one["state"] for one in result["controls"]}
    assert states["training.before_access"] == "not_held"


def test_every_overdue_course_stands_in_the_file(reminded: dict[str, Any], sheet: dict[str, Any]):
    """By staff number, without name or address."""
    content = (Path(reminded["bundle"]) / "overdue.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content)))
    courses = {"ONB": 1, "LAW": 2, "SKL": 3, "EMG": 4}
    found = {(int(one["person"][1:]), courses[one["course"]]) for one in rows}
    assert found == {tuple(one) for one in sheet["planted"]["training_overdue"]["rows"]}
    assert "@" not in content


def test_the_right_people_got_one_mail_each(
    cli: Cli, mails: list[EmailMessage], sheet: dict[str, Any]
):
    """Whoever has something overdue, and nobody twice."""
    numbers = addresses(cli)
    got = [numbers[parseaddr(mail["To"])[1]] for mail in mails]
    assert len(got) == len(set(got))
    late = {f"E{one[0]:05d}" for one in sheet["planted"]["training_overdue"]["rows"]}
    assert late <= set(got)
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


def test_a_mail_has_its_headers_both_parts_and_both_languages(mails: list[EmailMessage]):
    """As a mail program shows it, and as an automatic reply leaves it alone."""
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
        # only the weekly summary may be refused, and a mail with a duty in it may not
        duty = "您应参加的培训" in plain or "您团队中" in plain
        assert ("如不希望再收到此类消息" in plain) != duty
    assert len(identities) == len(mails)


def test_no_mail_has_a_customers_value(cli: Cli, mails: list[EmailMessage]):
    """Neither phones, nor ID numbers, nor names of those who are no staff."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        rows = conn.execute("SELECT phone, id_number, email FROM customer").fetchall()
    values = {one for row in rows for one in row if one}
    for mail in mails:
        text = text_of(mail, "plain") + text_of(mail, "html") + str(mail["Subject"])
        assert not [one for one in values if one in text]
        assert not re.search(r"1[3-9]\d{9}", text)


def test_a_second_run_of_the_day_tells_nobody(
    cli: Cli, reminded: dict[str, Any], mails: list[EmailMessage], any_hour: str
):
    """Its evidence is sealed all the same."""
    before = len(list((cli.home / "mail").glob("*.eml")))
    done = cli.json("run", "remind_training", code=1, PARCELSEAL_POLICY=any_hour)
    assert done["bundle"] != reminded["bundle"]
    assert mails
    assert len(list((cli.home / "mail").glob("*.eml"))) == before
    result = json.loads((Path(done["bundle"]) / "result.json").read_text())
    figures = {one["name"]: one["value"] for one in result["metrics"]}
    assert figures["notices.sent"] == 0
    assert figures["notices.deferred"] == 0


def test_neither_airflow_nor_the_bundle_has_names_or_addresses_of_staff(
    cli: Cli, reminded: dict[str, Any]
):
    """XCom and evidence name people by number; the outbox alone knows where they are reached."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        staff = [row[0] for row in conn.execute("SELECT email FROM employee")]
    with psycopg.connect(cli.postgres("airflow_runs")) as conn:
        kept = str(
            conn.execute("SELECT value FROM xcom WHERE dag_id = 'remind_training'").fetchall()
        )
    assert kept
    texts = [kept]
    texts += [one.read_text(errors="replace") for one in Path(reminded["bundle"]).glob("*.*")]
    assert not [one for one in staff for text in texts if one in text]
