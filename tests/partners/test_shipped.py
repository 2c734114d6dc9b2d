"""The shipped partners.yaml on the sample courier: its answer sheet, and ten dates of a year."""

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
from include.services.clock import FixedClock
from include.state.connect import engine
from include.workplace import ROOT
from tests.support.contexts import run_context, step_record
from tests.support.databases import fresh

DAY = date(2026, 1, 5)
PACK = load_pack(SHIPPED)
ZONE = ZoneInfo("Asia/Shanghai")
TERMS = ("nda", "agreement", "review")

# Each run, and the next day on which people could be told if not now: the Monday after it, or the
# first workday after a holiday by the State Council's arrangement of 2026.
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
    """The sample as `courier_partners` sees it."""

    conninfo: str
    sheet: AnswerSheet


@pytest.fixture(scope="module")
def courier(postgres: EmbeddedPostgres) -> Iterator[Courier]:
    """The sample, read by the role that has the rights of sample_grants.sql and no others."""
    at = datetime(2026, 1, 5, 1, 40, tzinfo=UTC)
    with (
        fresh(postgres) as name,
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
    """An empty state database."""
    return engine(migrated_database)


def run(courier: Courier, state: Engine, day: date) -> StepRecord:
    at = datetime.combine(day, datetime.min.time(), ZONE) + timedelta(hours=9, minutes=40)
    run = Run("review_partners", day.isoformat())
    databases = {"courier": courier.conninfo}
    context = run_context(PARTNERS, PACK, databases, state, FixedClock(at), run)
    return step_record(CHECK, context)


def told(state: Engine, day: date, kind: str = "partners.reminder") -> set[str]:
    """Keys of what a run queued."""
    with state.connect() as conn:
        query = text("SELECT key FROM notice WHERE kind = :kind AND run_id = :run")
        return set(conn.scalars(query, {"kind": kind, "run": day.isoformat()}))


def keys(sheet: AnswerSheet, rule: str) -> list[str]:
    return list(map(str, sheet.planted[rule].keys()))


def test_the_findings_are_those_of_the_answer_sheet(courier: Courier, state: Engine) -> None:
    """Whoever lapsed and has access, and nobody else."""
    record = run(courier, state, DAY)
    found: dict[str, list[str]] = {}
    for one in record.findings:
        found.setdefault(one.code, []).append(one.subject)
    assert found == {
        "partners.nda_lapsed": keys(courier.sheet, "partner_lapsed_nda"),
        "partners.agreement_lapsed": keys(courier.sheet, "partner_lapsed_nda"),
        "partners.review_lapsed": keys(courier.sheet, "partner_review_overdue"),
    }
    figures = {one.name: one.value for one in record.metrics}
    assert (figures["partners_live_unbound"], figures["partners_live_unreviewed"]) == (2, 1)


def ends(number: int) -> dict[str, date]:
    """The last days of a partner of the sample, by the words of its generator."""
    nda = DAY + timedelta(days=-700 if number in (11, 12) else 40 * number)
    reviewed = DAY - timedelta(days=500 if number == 13 else 20 * number)
    due = reviewed.replace(year=reviewed.year + 1)
    return {"nda": nda, "agreement": nda + timedelta(days=30), "review": due}


def standing(today: date, telling: date) -> set[str]:
    """By counting days one by one: which rung each term of each partner stands on."""
    found = set()
    for number in range(1, 14):  # the fourteenth has no access
        for what, last in ends(number).items():
            step = None
            for rung in (90, 30, 7):
                day = today
                while day < telling:  # the days that this run is the last one to reach in time
                    if day >= last - timedelta(days=rung):
                        step = -rung
                    day += timedelta(days=1)
            lapsed = last + timedelta(days=1)
            while lapsed <= today:
                step = (lapsed - last).days
                lapsed += timedelta(days=7)
            if step is not None:
                found.add(f"{number}/{what}/{last}/{step}")
    return found


def test_ten_dates_of_a_year_tell_exactly_the_right_rungs(courier: Courier, state: Engine) -> None:
    """Each once, over holidays and the end of the year; a run that is repeated tells nothing."""
    before: set[str] = set()
    for day, telling in RUNS.items():
        today = date.fromisoformat(day)
        expected = standing(today, date.fromisoformat(telling)) - before
        run(courier, state, today)
        assert told(state, today) == expected, day
        assert told(state, today, "partners.contact") == expected, day
        before |= expected
        run(courier, state, today)
        assert told(state, today) == expected, day
    assert len(before) > 100


BY_HAND: dict[str, list[str]] = {
    "2026-01-05": [
        "1/nda/2026-02-14/-90",
        "2/nda/2026-03-26/-90",
        "1/agreement/2026-03-16/-90",
        "11/nda/2024-02-05/694", "11/agreement/2024-03-06/666",
        "12/nda/2024-02-05/694", "12/agreement/2024-03-06/666",
        "13/review/2025-08-23/134",
    ],
    # On the Monday before Spring Festival: what would come in the holidays comes now.
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
def test_two_dates_by_hand(courier: Courier, state: Engine, day: str) -> None:
    """So that the counting above does not stand alone."""
    today = date.fromisoformat(day)
    run(courier, state, today)
    assert told(state, today) == set(BY_HAND[day])


def test_the_role_reads_nothing_but_partners(courier: Courier) -> None:
    """No customer's table."""
    with (
        psycopg.connect(courier.conninfo) as connection,
        pytest.raises(psycopg.errors.Error) as refused,
    ):
        connection.execute("SELECT FROM customer")
    assert refused.value.sqlstate == "42501"


def test_no_contact_stands_in_the_record(courier: Courier, state: Engine) -> None:
    """Nor the role that a contact has there."""
    record: Any = run(courier, state, DAY).model_dump_json()
    assert "partner.example" not in record
    assert "privacy officer" not in record
    assert "华东仓配科技有限公司" in record


def test_sources_of_questions_bind_whoever_is_asked() -> None:
    """A duty of the company is no source of what its partner has to do: that is its own rule."""
    rules = PACK.require(PARTNERS)
    sources = {
        one.id: None if isinstance(one.basis, str) else (one.basis.version, one.basis.article)
        for one in rules.questionnaire
    }
    law = "2021-11-01"
    assert sources == {
        "purpose": (law, "21"), "return_or_delete": (law, "21"), "sub_processors": (law, "21"),
        "measures": (law, "59"), "encryption": (law, "51"), "incidents": None,
        "within_the_country": (law, "38-40"), "records": None, "supervision": (law, "21"),
        "certificate": None,
    }  # fmt: skip
