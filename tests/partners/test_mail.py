"""Tests that a real SMTP server receives one mail per recipient, in both languages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from include.partners import reminders
from tests.notify.notify_fixtures import MovingClock, Post
from tests.partners.partner_fixtures import PartnersCompany
from tests.support.smtp import Smtp

NAME = "Süd\r\nBcc: all@evil.example\r\n\r\n配送"


@pytest.fixture
def server() -> Iterator[Smtp]:
    with Smtp() as smtp:
        yield smtp


def mail_delivery(company: PartnersCompany, server: Smtp) -> Post:
    still_due = {
        kind: partial(reminders.still_due, company.context)
        for kind in ("partners.reminder", "partners.contact")
    }
    return Post(company.state, server.port, MovingClock(company.now), confirm=still_due)


def test_each_recipient_gets_all_reminders_of_a_run_in_one_mail(
    company: PartnersCompany, server: Smtp
) -> None:
    company.add_partner("1", company=NAME, secrecy_to="2026-06-20", deal_to="2026-05-30")
    company.add_partner("2", contact="broken", seen_on="2025-06-20")
    company.check()
    delivery = mail_delivery(company, server).deliver()
    mails = {mail.recipient: mail for mail in server.read}
    assert set(mails) == {"compliance@courier.example", "privacy@1.example"}
    assert (delivery.sent, delivery.undeliverable) == (
        2,
        0,
    )  # the invalid address was rejected when the mail was queued
    owner = mails["compliance@courier.example"]
    assert owner.mail["Bcc"] is None
    assert [str(mail.addresses[0].addr_spec) for mail in (owner.mail["To"],)] == [
        "compliance@courier.example"
    ]
    for kind in ("plain", "html"):
        text = owner.text(kind)
        for expected in ("2026-06-20", "2026-05-30", "security review is due by", "保密协议将于"):
            assert expected in text, kind
    assert "Süd Bcc: all@evil.example 配送（合作方编号 1）" in owner.text("plain")
    partner = mails["privacy@1.example"].text("plain")
    assert "Please renew it with us" in partner
    assert "请与我司续签" in partner
    assert "Company 2" not in partner


def test_reminder_is_not_delivered_if_the_agreement_was_renewed_after_reminder_was_queued(
    company: PartnersCompany, server: Smtp
) -> None:
    """The agreement was renewed after the reminder was queued and before mail could be sent."""
    company.add_partner("1", secrecy_to="2026-06-20")
    company.add_partner("2", secrecy_to="2026-06-20")
    company.check()
    company.change_partner("1", secrecy_to="2028-06-20")
    mail_delivery(company, server).deliver()
    texts = {mail.recipient: mail.text("plain") for mail in server.read}
    assert set(texts) == {"compliance@courier.example", "privacy@2.example"}
    assert "Company 1" not in texts["compliance@courier.example"]


def test_owner_receives_one_mail_per_week_about_lapsed_agreement(
    company: PartnersCompany, server: Smtp
) -> None:
    company.add_partner("1", deal_to="2026-05-30", contact=None)
    for _week in range(3):
        for run in ("a", "b"):
            company.check(f"{company.today} {run}")
            mail_delivery(company, server).deliver()
        company.today += timedelta(days=7)
    assert [mail.recipient for mail in server.read] == ["compliance@courier.example"] * 3


def test_mail_about_failed_or_reopened_review_has_no_due_date(
    company: PartnersCompany, server: Smtp
) -> None:
    for code in ("1", "2"):
        company.add_partner(code)
        company.complete_review(code, passed=code == "2")
    company.reopen("2")
    company.check()
    mail_delivery(company, server).deliver()
    assert {mail.recipient for mail in server.read} == {
        "compliance@courier.example", "privacy@1.example",
    }  # fmt: skip
    for mail in server.read:
        text = mail.text("plain")
        assert "review" in text
        assert "2026-05-31" not in text
        assert "[due" not in text
