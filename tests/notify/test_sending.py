"""The sending step: its record covers the whole run, and contains no address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from include.evidence.model import Outcome, StepRecord
from include.messages import _, verbatim
from include.notify import sending
from include.notify.notification import to_role
from include.notify.sending import messages_section
from include.policy.rules import Role
from include.reports.i18n import Translator
from include.reports.model import Paragraph, Table
from include.services.errors import ServiceError
from tests.notify.notify_fixtures import HEADING, KIND, THURSDAY, Post, notification
from tests.support.robots import RobotServer
from tests.support.smtp import DROP, Smtp

TITLE = _("training reminder")
TITLES = {"en": "Compliance", "zh-CN": "合规部门"}


def send(post: Post) -> sending.Sending:
    config = replace(post.office(), titles={KIND: TITLE})
    return sending.send(config, THURSDAY, "6.2")


def figures(record: StepRecord) -> dict[str, float | int | None]:
    return {metric.name.removeprefix("notices."): metric.value for metric in record.metrics}


def test_sending_step_without_problems_has_no_finding(post: Post, server: Smtp) -> None:
    post.queue(notification(1), notification(2), notification(1, "E2", kind="partners.review"))
    sending_result = send(post)
    assert sending_result.retry_reason == ""
    assert sending_result.record.outcome is Outcome.PASS
    assert sending_result.record.findings == []
    assert figures(sending_result.record) == {
        "sent": 2,
        "deferred": 0,
        "undeliverable": 0,
        "in_doubt": 0,
    }
    assert sending_result.record.data["kinds"] == [["partners.review", 1, 1], [KIND, 2, 1]]
    post.queue(notification(3))
    assert send(post).record.data["waiting"] == 1


def test_undeliverable_notifications_are_reported_with_staff_numbers(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, at: (
        "550 5.1.1 unknown e3@" if (phase, at[:2]) == ("RCPT", "e3") else None
    )
    post.queue(
        notification(1, address=""),
        notification(1, "E2", address=""),
        notification(1, "E3"),
        notification(1, "E4"),
    )
    first, second = send(post), send(post)
    assert first.record.findings == second.record.findings
    assert figures(second.record)["sent"] == 1
    assert second.record.outcome is Outcome.ATTENTION
    assert second.retry_reason == ""
    messages = [Translator("en").text(finding.message) for finding in second.record.findings]
    assert messages == [
        "2 notifications could not be sent (no address is registered); recipients: E1, E2.",
        "1 notifications could not be sent (the server refused the message: 550 5.1.1); "
        "recipients: E3.",
    ]
    assert "@" not in second.record.model_dump_json()


def test_sending_step_returns_a_retry_reason_if_the_mail_server_is_unreachable(
    post: Post, server: Smtp
) -> None:
    post.queue(notification(1))
    server.stop()
    sending_result = send(post)
    assert "mail" in sending_result.retry_reason
    assert [finding.code for finding in sending_result.record.findings] == [
        "notices.server_down",
        "notices.deferred",
    ]
    assert sending_result.record.outcome is Outcome.ATTENTION
    server.start()
    sending_result = send(post)
    assert (sending_result.retry_reason, sending_result.record.outcome) == ("", Outcome.PASS)
    assert figures(sending_result.record)["sent"] == 1


def test_finding_contains_the_reply_code_with_which_the_mail_server_refused_the_login(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: "535 5.7.8 sesame" if phase == "MAIL" else None
    post.queue(notification(1))
    messages = Translator("en").text(send(post).record.findings[0].message)
    assert messages == "The mail server could not be used (535 5.7.8)."


def test_step_record_has_findings_about_failing_workflows_and_messages_that_may_have_arrived(
    post: Post, server: Smtp, robots: RobotServer
) -> None:

    def unsure(_keys: Sequence[str]) -> set[str]:
        raise ServiceError("The database of courses cannot be reached.")

    post.robots = robots
    robots.answer = "drop"
    post.queue(
        notification(1, kind="partners.review", channel="robot", address="chat"), notification(1)
    )
    post.confirm = {KIND: unsure}
    sending_result = send(post)
    assert [finding.code for finding in sending_result.record.findings] == [
        "notices.in_doubt",
        "notices.unsure",
        "notices.deferred",
    ]
    assert sending_result.retry_reason
    assert figures(sending_result.record)["in_doubt"] == 1


def test_sending_step_returns_a_retry_reason_if_the_connection_to_the_mail_server_is_lost(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notification(1))
    assert send(post).retry_reason
    server.rule = lambda _phase, _address: None
    post.clock.on(minutes=1)
    assert send(post).retry_reason == ""


def test_report_section_has_tables_of_sent_notifications_and_of_undelivered_notifications(
    post: Post, server: Smtp
) -> None:
    many = [notification(1, f"E{number:04}", address="") for number in range(600)]
    post.queue(notification(1), *many)
    section = messages_section(send(post).record)
    tables = {
        Translator("en").text(block.caption): block.rows
        for block in section.blocks
        if isinstance(block, Table)
    }
    assert tables["Notifications sent"] == [[TITLE, 1, 1]]
    assert len(tables["Notifications that could not be delivered"]) == 500
    last = section.blocks[-1]
    assert isinstance(last, Paragraph)
    assert (
        Translator("en").text(last.text)
        == "100 more notifications are not shown here; the data engineers can list them."
    )
    unfinished = messages_section(StepRecord(step="send", outcome=Outcome.FAIL))
    assert len(unfinished.blocks) == 1


def test_role_is_notified_at_all_its_mail_addresses_and_in_its_chat(
    post: Post, server: Smtp, robots: RobotServer
) -> None:
    post.robots = robots
    role = Role(id="compliance", title=TITLES, mail=("a@b.example", "c@b.example"), robot="chat")
    nobody = Role(id="nobody", title=TITLES)
    line = verbatim("one")
    words = {"kind": KIND, "key": "k", "heading": HEADING, "line": line}
    post.queue(*to_role(role, **words), *to_role(nobody, **words | {"key": "n"}))
    sending_result = post.deliver()
    assert (sending_result.sent, len(robots.texts)) == (3, 1)
    assert sorted(mail.recipient for mail in server.taken) == ["a@b.example", "c@b.example"]
    assert post.causes()["n"] == "no_address"
    assert set(post.states()) == {"k", "k#1", "k#robot", "n"}
