"""Tests of the shipped partners.yaml on the sample company, compared with the answer sheet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from sqlalchemy import Engine, text

from include.evidence.model import StepRecord
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.partners.check import CHECK
from include.partners.rules import PARTNERS
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company import load
from include.sample_company.answers import AnswerSheet
from include.sample_company.load import statements
from include.service_container import ROOT
from include.services.clock import FixedClock
from include.state.connect import engine
from tests.support.contexts import run_context, step_record
from tests.support.databases import temporary_database

DAY = date(2026, 1, 5)
PACK = load_pack(SHIPPED)
ZONE = ZoneInfo("Asia/Shanghai")
TERMS = ("nda", "agreement", "review")

# Each run and its next day on which mails can be sent: the Monday after it, or the first workday
# after a holiday by the State Council's arrangement of 2026.
GRANTS = ROOT / "include/partners/sample_grants.sql"
RUNS = {
    "2026-01-05": "2026-01-12",
    "2026-02-09": "2026-02-24",  # Spring Festival, 15 to 23 February
    "2026-02-16": "2026-02-24",  # in it
    "2026-03-30": "2026-04-07",  # Qingming, 4 to 6 April
    "2026-04-27": "2026-05-06",  # Labour Day, 1 to 5 May
    "2026-06-15": "2026-06-22",
    "2026-09-28": "2026-10-08",  # National Day, 1 to 7 October
    "2026-10-05": "2026-10-12",  # in it
    "2026-12-28": "2027-01-04",
    "2027-01-04": "2027-01-11",
}


@dataclass(frozen=True)
class Courier:
    """The sample database, opened with the login `courier_partners`, and its answer sheet."""

    conninfo: str
    sheet: AnswerSheet


@pytest.fixture(scope="module")
def courier(postgres: EmbeddedPostgres) -> Iterator[Courier]:
    """Provide the sample company, with a login that has only the rights of sample_grants.sql."""
    at = datetime(2026, 1, 5, 1, 40, tzinfo=UTC)
    with (
        temporary_database(postgres) as name,
        psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin,
    ):
        admin.execute("CREATE ROLE courier_partners LOGIN PASSWORD 'x'")
        with psycopg.connect(postgres.conninfo(name)) as connection:
            sheet = load(connection, customers=0, as_of=at)
            for statement in statements(GRANTS):
                connection.execute(statement)
        address = postgres.conninfo(name, "courier_partners", "x")
        yield Courier(address, sheet)
        with psycopg.connect(postgres.conninfo(name), autocommit=True) as connection:
            connection.execute("DROP OWNED BY courier_partners")
        admin.execute("DROP ROLE courier_partners")


@pytest.fixture
def state(migrated_database: str) -> Engine:
    """Provide an empty state database."""
    return engine(migrated_database)


def run_check(courier: Courier, state: Engine, day: date) -> StepRecord:
    at = datetime.combine(day, datetime.min.time(), ZONE) + timedelta(hours=9, minutes=40)
    run = Run("review_partners", day.isoformat())
    databases = {"courier": courier.conninfo}
    context = run_context(PARTNERS, PACK, databases, state, FixedClock(at), run)
    return step_record(CHECK, context)


def queued_keys(state: Engine, day: date, kind: str = "partners.reminder") -> set[str]:
    """Return the keys of the notifications that the run of a day queued."""
    with state.connect() as conn:
        query = text("SELECT key FROM notification WHERE kind = :kind AND run_id = :run")
        return set(conn.scalars(query, {"kind": kind, "run": day.isoformat()}))


def keys(sheet: AnswerSheet, rule: str) -> list[str]:
    return list(map(str, sheet.planted[rule].keys()))


def test_findings_about_sample_partners_equal_answer_sheet(courier: Courier, state: Engine) -> None:
    record = run_check(courier, state, DAY)
    subjects: dict[str, list[str]] = {}
    for finding in record.findings:
        subjects.setdefault(finding.code, []).append(finding.subject)
    assert subjects == {
        "partners.nda_lapsed": keys(courier.sheet, "partner_lapsed_nda"),
        "partners.agreement_lapsed": keys(courier.sheet, "partner_lapsed_nda"),
        "partners.review_lapsed": keys(courier.sheet, "partner_review_overdue"),
    }
    figures = {metric.name: metric.value for metric in record.metrics}
    assert (figures["partners_live_unbound"], figures["partners_live_unreviewed"]) == (2, 1)


def last_days(number: int) -> dict[str, date]:
    """Return the last day of each obligation of a sample partner, as the generator computes it."""
    nda = DAY + timedelta(days=-700 if number in (11, 12) else 40 * number)
    reviewed = DAY - timedelta(days=500 if number == 13 else 20 * number)
    due = reviewed.replace(year=reviewed.year + 1)
    return {"nda": nda, "agreement": nda + timedelta(days=30), "review": due}


def expected_keys(today: date, next_send_day: date) -> set[str]:
    """Return the keys of the reminders due on a date, computed by counting days one by one."""
    keys_expected = set()
    for number in range(1, 14):  # the fourteenth partner has no access
        for kind, last in last_days(number).items():
            offset = None
            for days_before in (90, 30, 7):
                day = today
                while day < next_send_day:  # days that only this run reaches in time
                    if day >= last - timedelta(days=days_before):
                        offset = -days_before
                    day += timedelta(days=1)
            lapsed = last + timedelta(days=1)
            while lapsed <= today:
                offset = (lapsed - last).days
                lapsed += timedelta(days=7)
            if offset is not None:
                keys_expected.add(f"{number}/{kind}/{last}/{offset}")
    return keys_expected


def test_runs_of_a_year_queue_each_expected_reminder_once(courier: Courier, state: Engine) -> None:
    already_queued: set[str] = set()
    for day, next_send_day in RUNS.items():
        today = date.fromisoformat(day)
        expected = expected_keys(today, date.fromisoformat(next_send_day)) - already_queued
        run_check(courier, state, today)
        assert queued_keys(state, today) == expected, day
        assert queued_keys(state, today, "partners.contact") == expected, day
        already_queued |= expected
        run_check(courier, state, today)
        assert queued_keys(state, today) == expected, day
    assert len(already_queued) > 100


BY_HAND: dict[str, list[str]] = {
    "2026-01-05": [
        "1/nda/2026-02-14/-90",
        "2/nda/2026-03-26/-90",
        "1/agreement/2026-03-16/-90",
        "11/nda/2024-02-05/694", "11/agreement/2024-03-06/666",
        "12/nda/2024-02-05/694", "12/agreement/2024-03-06/666",
        "13/review/2025-08-23/134",
    ],
    # On the Monday before Spring Festival, reminders that fall in the holidays are sent early.
    "2026-02-09": [
        "1/nda/2026-02-14/-7",
        "2/nda/2026-03-26/-90",  # its 30 days begin on 24 February: the next run is in time
        "3/nda/2026-05-05/-90",
        "1/agreement/2026-03-16/-30",
        "2/agreement/2026-04-25/-90",
        "11/nda/2024-02-05/729", "11/agreement/2024-03-06/701",
        "12/nda/2024-02-05/729", "12/agreement/2024-03-06/701",
        "12/review/2026-05-10/-90",
        "13/review/2025-08-23/169",
    ],
}  # fmt: skip


@pytest.mark.parametrize("day", BY_HAND)
def test_run_queues_exactly_the_reminders_in_a_list_written_by_hand(
    courier: Courier, state: Engine, day: str
) -> None:
    """This list was written by hand.

    It is a second source of expected values besides the computed keys.
    """
    today = date.fromisoformat(day)
    run_check(courier, state, today)
    assert queued_keys(state, today) == set(BY_HAND[day])


def test_login_that_reads_the_partner_register_cannot_read_customers(courier: Courier) -> None:
    with (
        psycopg.connect(courier.conninfo) as connection,
        pytest.raises(psycopg.errors.Error) as error,
    ):
        connection.execute("SELECT FROM customer")
    assert error.value.sqlstate == "42501"


def test_step_record_of_sample_contains_no_contacts(courier: Courier, state: Engine) -> None:
    record: Any = run_check(courier, state, DAY).model_dump_json()
    assert "partner.example" not in record
    assert "privacy officer" not in record
    assert "华东仓配科技有限公司" in record


def test_shipped_questions_for_partners_cite_only_laws_that_oblige_partners() -> None:
    """A law that only obliges the company itself is not a valid source of a question."""
    rules = PACK.require(PARTNERS)
    sources = {
        question.id: None
        if isinstance(question.basis, str)
        else (question.basis.version, question.basis.article)
        for question in rules.questionnaire
    }
    law = "2021-11-01"
    assert sources == {
        "purpose": (law, "21"), "return_or_delete": (law, "21"), "sub_processors": (law, "21"),
        "measures": (law, "59"), "encryption": (law, "51"), "incidents": None,
        "within_the_country": (law, "38-40"), "records": None, "supervision": (law, "21"),
        "certificate": None,
    }  # fmt: skip
