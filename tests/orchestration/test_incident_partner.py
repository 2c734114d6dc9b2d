"""An incident at a partner reopens the partner's security review once."""

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

from include.incident import incident_opening
from include.incident.incident_ids import Kind
from include.local.postgres import EmbeddedPostgres
from include.partners import history, reviews
from include.partners.history import Review
from include.partners.register import load_partner
from include.partners.rules import PartnerRules
from include.services.database import DatabaseAddress
from include.workflow.run_context import PartnerIncident, PartnerReaction, RunContext
from tests.incident.incident_fixtures import LEAD, NIGHT, TABLES, Case, Company
from tests.partners.partner_fixtures import PartnersCompany, new_company

PARTNER = "17"


@pytest.fixture(scope="module")
def shared(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PartnersCompany]:
    """Yield a company whose register has a partner, and whose database has affected customers."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("pack")) as partner_company:
        partner_company.today = NIGHT.date() + timedelta(days=1)
        partner_company.add_partner(PARTNER)
        partner_company.sql(TABLES)
        yield partner_company


@pytest.fixture
def company(shared: PartnersCompany, tmp_path: Path) -> Company:
    return Company(shared.state, DatabaseAddress.from_conninfo(shared.conninfo), tmp_path)


def opened(company: Company, **form: Any) -> Case:
    """Open an incident without reopening the partner's security review."""
    usual = {"type": "partner_breach", "partner": PARTNER, "another": True}
    with patch.object(incident_opening, "reopen_review"):
        return company.open(**usual | form)


def reopen_review(case: Case, partners: RunContext[PartnerRules] | None) -> None:
    """Call the partner workflow's reaction to the incident.

    If `partners` is None, the policy pack omits the section of the partner workflow.
    """

    def react(conn: Connection, incident: PartnerIncident) -> PartnerReaction | None:
        return partners and reviews.reopen_review(partners, conn, incident)

    task = replace(case.context.task, on_partner_incident=react)
    incident_opening.reopen_review(replace(case.context, task=task), case.record)


def review_of(shared: PartnersCompany, partner: str = PARTNER) -> Review | None:
    with shared.state.connect() as conn:
        return history.lock_open_review(conn, partner)


def test_incident_at_a_partner_reopens_its_security_review_and_blocks_data_sharing(
    shared: PartnersCompany, company: Company
) -> None:
    """The review names the incident, and the incident's timeline names the review."""
    assert shared.status(PARTNER).is_allowed
    case = opened(company)
    reopen_review(case, shared.context)
    assert not shared.status(PARTNER).is_allowed
    review = review_of(shared)
    assert review is not None
    assert case.number in review.because
    (note,) = case.entries(Kind.NOTE)
    assert note.data == {"partner": PARTNER, "review": review.id}
    assert "reopened" in case.said(Kind.NOTE)[0]
    with shared.state.connect() as conn:
        by = conn.exec_driver_sql("SELECT reopened_by FROM partner_review").scalar_one()
    assert by == LEAD


def test_retried_task_does_not_discard_the_questionnaire_of_the_reopened_partner_review(
    shared: PartnersCompany, company: Company
) -> None:
    """Another incident at the partner starts the review again."""
    case = opened(company)
    reopen_review(case, shared.context)
    with shared.state.begin() as conn:
        partner = load_partner(shared.context, PARTNER)
        rules = shared.context.rules
        reviews.issue_questionnaire(
            conn, partner, rules, by="E1", at=shared.now, timezone="Asia/Shanghai"
        )
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
def test_drill_or_incident_without_a_partner_reopens_no_partner_review(
    shared: PartnersCompany, company: Company, form: dict[str, Any]
) -> None:
    scenario = form.pop("tabletop", "")
    case = opened(company, scenario=scenario, **form)
    before = review_of(shared)
    reopen_review(case, shared.context)
    assert review_of(shared) == before
    assert case.entries(Kind.NOTE) == []


def test_duplicate_incident_reopens_no_partner_review(
    shared: PartnersCompany, company: Company
) -> None:
    opened(company, what="The portal showed everything", another=False)
    again = opened(company, what="The portal showed everything", another=False)
    reopen_review(again, shared.context)
    assert again.entries(Kind.NOTE) == []


def test_timeline_entry_contains_the_reason_why_the_partner_review_cannot_be_reopened(
    shared: PartnersCompany, company: Company
) -> None:
    """The partner is unknown, or the policy pack has no section for partners."""
    case = opened(company, partner="4711")
    reopen_review(case, shared.context)
    assert review_of(shared, "4711") is None
    assert "no partner 4711" in case.said(Kind.NOTE)[0]
    other = opened(company)
    reopen_review(other, None)
    assert "no rules for partners" in other.said(Kind.NOTE)[0]
    assert [
        entry.data["review"] for entry in (*case.entries(Kind.NOTE), *other.entries(Kind.NOTE))
    ] == [
        None,
        None,
    ]


def test_partner_review_is_reopened_even_if_the_partner_register_cannot_be_read(
    shared: PartnersCompany, company: Company
) -> None:
    nowhere = replace(shared, conninfo=make_conninfo(shared.conninfo, port=1))
    case = opened(company, partner="12")
    partners = nowhere.context
    reopen_review(case, partners)
    review = review_of(shared, "12")
    assert review is not None
    assert case.number in review.because
