"""An incident at a partner opens the partner's security review again, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection

from include.incident import opening
from include.incident.names import Kind
from include.local.postgres import EmbeddedPostgres
from include.partners import history, reviews
from include.partners.history import Review
from include.partners.register import partner_of
from include.partners.rules import PartnerRules
from include.services.database import DatabaseAddress
from include.workflow.run_context import PartnerIncident, PartnerReaction, RunContext
from tests.incident.desk_rig import LEAD, NIGHT, TABLES, Case, Company
from tests.partners.rig import Rig, new_rig

PARTNER = "17"


@pytest.fixture(scope="module")
def shared(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A register with one partner, whose database has the incident's people too."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("pack")) as made:
        made.today = NIGHT.date() + timedelta(days=1)
        made.ally(PARTNER)
        made.sql(TABLES)
        yield made


@pytest.fixture
def company(shared: Rig, tmp_path: Path) -> Company:
    return Company(shared.state, DatabaseAddress.from_conninfo(shared.conninfo), tmp_path)


def opened(company: Company, **form: Any) -> Case:
    """An incident whose partner's review is not opened again yet."""
    usual = {"type": "partner_breach", "partner": PARTNER, "another": True}
    with patch.object(opening, "reopen_review"):
        return company.open(**usual | form)


def reopen_review(case: Case, partners: RunContext[PartnerRules] | None) -> None:
    """Let the workflow of partners react to an incident; None if the pack leaves it out."""

    def react(conn: Connection, incident: PartnerIncident) -> PartnerReaction | None:
        return partners and reviews.reopen_review(partners, conn, incident)

    task = replace(case.context.task, on_partner_incident=react)
    opening.reopen_review(replace(case.context, task=task), case.record)


def review_of(shared: Rig, partner: str = PARTNER) -> Review | None:
    with shared.state.connect() as conn:
        return history.open_one(conn, partner)


def test_nothing_may_be_shared_until_a_review_passes(shared: Rig, company: Company) -> None:
    """Who pressed Trigger opened it, and the incident is why; so says the timeline."""
    assert shared.standing(PARTNER).allowed
    case = opened(company)
    reopen_review(case, shared.context)
    assert not shared.standing(PARTNER).allowed
    review = review_of(shared)
    assert review is not None
    assert case.number in review.because
    (note,) = case.entries(Kind.NOTE)
    assert note.data == {"partner": PARTNER, "review": review.id}
    assert "opened again" in case.said(Kind.NOTE)[0]
    with shared.state.connect() as conn:
        by = conn.exec_driver_sql("SELECT reopened_by FROM partner_review").scalar_one()
    assert by == LEAD


def test_a_repeated_task_leaves_what_was_issued_since(shared: Rig, company: Company) -> None:
    """The first time counts; of another incident the review begins anew."""
    case = opened(company)
    reopen_review(case, shared.context)
    with shared.state.begin() as conn:
        partner = partner_of(shared.context, PARTNER)
        rules = shared.context.rules
        reviews.issue(conn, partner, rules, by="E1", at=shared.now, timezone="Asia/Shanghai")
    issued = review_of(shared)
    assert issued is not None
    assert issued.issued is not None
    reopen_review(case, shared.context)
    assert review_of(shared) == issued
    assert len(case.entries(Kind.NOTE)) == 1
    other = opened(company)
    reopen_review(other, shared.context)
    again = review_of(shared)
    assert again is not None
    assert (again.issued, again.id) == (None, issued.id)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "lost_device"},
        {"partner": None},
        {"tabletop": "scanner_lost"},
    ],
    ids=["another type", "no partner", "a drill"],
)
def test_of_anything_else_no_review_is_opened(
    shared: Rig, company: Company, form: dict[str, Any]
) -> None:
    """Nor of a duplicate, which is led elsewhere."""
    scenario = form.pop("tabletop", "")
    case = opened(company, scenario=scenario, **form)
    before = review_of(shared)
    reopen_review(case, shared.context)
    assert review_of(shared) == before
    assert case.entries(Kind.NOTE) == []


def test_a_duplicate_opens_nothing(shared: Rig, company: Company) -> None:
    """The incident that it is has done so."""
    opened(company, what="The portal showed everything", another=False)
    again = opened(company, what="The portal showed everything", another=False)
    reopen_review(again, shared.context)
    assert again.entries(Kind.NOTE) == []


def test_what_could_not_be_opened_again_is_said(shared: Rig, company: Company) -> None:
    """A partner that nobody knows, and a pack that knows none."""
    case = opened(company, partner="4711")
    reopen_review(case, shared.context)
    assert review_of(shared, "4711") is None
    assert "no partner 4711" in case.said(Kind.NOTE)[0]
    other = opened(company)
    reopen_review(other, None)
    assert "no partners.yaml" in other.said(Kind.NOTE)[0]
    assert [
        one.data["review"] for one in (*case.entries(Kind.NOTE), *other.entries(Kind.NOTE))
    ] == [
        None,
        None,
    ]


def test_a_register_that_is_not_there_lets_nobody_through(shared: Rig, company: Company) -> None:
    """Nor does it hold the opening up."""
    nowhere = replace(shared, conninfo=make_conninfo(shared.conninfo, port=1))
    case = opened(company, partner="12")
    partners = nowhere.context
    reopen_review(case, partners)
    review = review_of(shared, "12")
    assert review is not None
    assert case.number in review.because
