"""Tests that each reminder is queued once, even if runs are repeated, killed or concurrent."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from include.notify.notification import Notification
from include.partners import history, reminders
from include.partners.partner_status import obligations_of
from include.reports.i18n import Translator
from tests.partners.partner_fixtures import PartnersCompany

ROOT = Path(__file__).parents[2]


def notifications(company: PartnersCompany) -> list[Notification]:
    run = company.context
    with run.state.connect() as conn:
        histories = history.load_histories(conn)
    obligations = obligations_of(run, histories, company.register().partners)
    return list(reminders.notifications(run, reminders.due_reminders(run, obligations)))


def notification_lines(
    notifications_found: Sequence[Notification], locale: str = "en"
) -> list[tuple[str, str]]:
    translator = Translator(locale)
    return [
        (notification.recipient, translator.text(notification.line))
        for notification in notifications_found
    ]


def test_reminder_is_sent_to_owner_and_partner(company: PartnersCompany) -> None:
    company.add_partner("1", secrecy_to="2026-06-20")
    reminders_found = notifications(company)
    assert notification_lines(reminders_found) == [
        ("role:compliance",
         "Company 1 (partner 1): The confidentiality agreement ends on 2026-06-20."),
        ("partner:1",
         "The confidentiality agreement ends on 2026-06-20. Please renew it with us."),
    ]  # fmt: skip
    assert "保密协议将于 2026-06-20 到期" in notification_lines(reminders_found, "zh_CN")[0][1]
    assert [notification.key for notification in reminders_found] == ["1/nda/2026-06-20/-30"] * 2
    assert reminders_found[1].address == "privacy@1.example"


def test_reminder_of_lapsed_obligation_says_that_sharing_must_stop(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", deal_to="2026-05-30", seen_on=None)
    company.add_partner("2")
    company.reopen("2")
    lines_found = notification_lines(notifications(company))
    assert lines_found[0] == (
        "role:compliance",
        "Company 1 (partner 1): The data-processing agreement ended on 2026-05-30. Do not share "
        "customer information with the partner until this is resolved.",
    )
    assert lines_found[1][1].endswith(
        "We share no customer information with you until this is resolved."
    )
    assert [recipient for recipient, line in lines_found if "reopened" in line] == [
        "role:compliance"
    ]


def test_reminder_is_sent_to_each_mail_address_and_chat_robot_of_owner(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", secrecy_to="2026-06-20")
    role = company.pack.roles["compliance"]

    def addresses(**more: object) -> list[tuple[str, str, str]]:
        changed = role.model_copy(update=more)
        company.pack = company.pack.model_copy(update={"roles": {"compliance": changed}})
        return [
            (notification.channel, notification.address, notification.key)
            for notification in notifications(company)[:-1]
        ]

    key = "1/nda/2026-06-20/-30"
    assert addresses(mail=("a@x.example", "b@x.example"), robot="chat") == [
        ("mail", "a@x.example", key),
        ("mail", "b@x.example", f"{key}#1"),
        ("robot", "chat", f"{key}#robot"),
    ]
    assert addresses(mail=(), robot="chat") == [("robot", "chat", f"{key}#robot")]
    assert addresses(mail=(), robot=None) == [("mail", "", key)]


@pytest.mark.parametrize("contact", [None, "", "not an address", "a@b@c", "x@y.example\r\nBcc: z"])
def test_notification_is_undeliverable_until_the_invalid_address_is_corrected(
    company: PartnersCompany, contact: str | None
) -> None:
    company.add_partner("1", secrecy_to="2026-06-20", contact=contact)
    company.check()

    def states() -> list[tuple[str, str]]:
        with company.state.connect() as conn:
            rows = conn.execute(text("SELECT recipient, state FROM notification ORDER BY id"))
            return [(row.recipient, row.state) for row in rows]

    assert states() == [("role:compliance", "pending"), ("partner:1", "undeliverable")]
    company.change_partner("1", contact="privacy@1.example")
    company.check()
    assert states() == [("role:compliance", "pending"), ("partner:1", "pending")]


def test_repeated_check_step_queues_no_second_reminder_and_returns_the_same_record(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", secrecy_to="2026-06-20")
    company.add_partner("2", seen_on="2025-01-01")
    first = company.check("r1")
    assert company.check("r1") == first
    assert len(company.keys()) == 2
    company.check("by hand")
    assert (len(company.keys()), company.keys(run="by hand")) == (2, [])


def test_reminders_start_again_for_the_new_end_date_of_a_renewed_agreement(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", secrecy_to="2026-06-20")
    company.check("r1")
    company.change_partner("1", secrecy_to="2026-08-20")
    company.check("r2")
    assert company.keys() == ["1/nda/2026-06-20/-30", "1/nda/2026-08-20/-90"]


def test_reminder_of_missing_or_lapsed_obligation_is_queued_every_week(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", deal_to=None, seen_on="2025-05-01")
    for week in range(4):
        company.check(f"w{week}")
        assert len(company.keys(run=f"w{week}")) == 2
        company.check(f"w{week} again")
        assert company.keys(run=f"w{week} again") == []
        company.today += timedelta(days=7)


def still_due(company: PartnersCompany, keys: Sequence[str]) -> set[str]:
    return reminders.still_due(company.context, keys)


def test_reminder_is_no_longer_due_if_its_obligation_was_met(company: PartnersCompany) -> None:
    for code in "1234":
        company.add_partner(code, secrecy_to="2026-06-20")
    company.add_partner("5", seen_on="2025-01-01")
    company.check()
    keys = company.keys()
    assert still_due(company, keys) == set(keys)
    company.change_partner("1", secrecy_to="2027-06-20")
    company.change_partner("2", connected=False)
    company.sql("DELETE FROM ally WHERE code = '3'")
    company.complete_review("5")
    assert still_due(company, keys) == {"4/nda/2026-06-20/-30"}


def test_reminder_about_agreement_is_no_longer_due_if_a_later_reminder_is_queued(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", secrecy_to="2026-06-20")
    company.check("r1")
    company.today += timedelta(days=7)
    company.check("r2")
    assert company.keys() == ["1/nda/2026-06-20/-30", "1/nda/2026-06-20/-7"]
    assert still_due(company, company.keys()) == {"1/nda/2026-06-20/-7"}
    assert still_due(company, company.keys()[:1]) == {
        "1/nda/2026-06-20/-30"
    }  # the later reminder was already sent
    company.today += timedelta(days=14)
    assert still_due(company, company.keys()) == set()
    company.check("r3")
    assert still_due(company, company.keys()) == {"1/nda/2026-06-20/1"}


def test_still_due_returns_the_keys_of_a_reminder_for_all_addresses_of_a_role(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", secrecy_to="2026-06-20")
    key = "1/nda/2026-06-20/-30"
    assert still_due(company, [key, f"{key}#1", f"{key}#robot"]) == {
        key,
        f"{key}#1",
        f"{key}#robot",
    }


def test_concurrent_runs_queue_each_reminder_once(company: PartnersCompany) -> None:
    for code in range(20):
        company.add_partner(str(code), secrecy_to="2026-06-20", seen_on="2025-01-01")
    companies = [replace(company, run=replace(company.run, run_id=name)) for name in ("a", "b")]
    start = threading.Barrier(2)
    errors: list[BaseException] = []

    def check_company(twin: PartnersCompany) -> None:
        try:
            start.wait(10)
            twin.check()
        except BaseException as error:  # noqa: BLE001 - asserted below
            errors.append(error)

    threads = [threading.Thread(target=check_company, args=(twin,)) for twin in companies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len(company.keys()) == len(set(company.keys())) == 40


CHILD = """
import os, sys
from include.partners import check
from tests.partners.partner_fixtures import PartnersCompany, write_partner_pack
from pathlib import Path
from include.state.connect import engine
company = PartnersCompany(write_partner_pack(Path(sys.argv[1])), sys.argv[2], engine(sys.argv[3]))
if sys.argv[4] == "before":
    check.record_step = lambda *_: os._exit(9)  # queued, and killed before the commit
company.check()
os._exit(9)  # committed, and killed before anybody is sent anything
"""


@pytest.mark.fault
@pytest.mark.parametrize("when", ["before", "after"])
def test_step_repeated_after_being_killed_queues_each_reminder_once(
    company: PartnersCompany, when: str, tmp_path: Path
) -> None:
    company.add_partner("1", secrecy_to="2026-06-20")
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), company.conninfo, company.state_conninfo,
         when],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == 9, process.stderr
    assert len(company.keys()) == (1 if when == "after" else 0)
    record = company.check()
    assert company.keys() == ["1/nda/2026-06-20/-30"]
    assert {metric.name: metric.value for metric in record.metrics}["partners.reminders"] == 2
