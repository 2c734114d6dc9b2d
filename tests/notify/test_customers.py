"""Notices to customers: their text, and the rule that no address is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from include.messages import Message, _, verbatim
from include.notify import sending
from include.notify.claims import UnsentNotification
from include.notify.notification import Notification
from include.notify.outbox import QueueCounts
from include.notify.texts import NoticePart
from include.policy.rules import NotificationRules
from include.reports.i18n import Translator
from include.services.errors import ServiceError
from tests.notify.notify_fixtures import (
    INDIVIDUAL_NOTICE,
    KIND,
    NOTICE_HEADING,
    Post,
    notice_text,
    notification,
)
from tests.support.smtp import DROP, Smtp

CANARY = "canary.7f3@customers.example"
STAFF = re.compile(r"due|截止|Course|课程|as required by the company|制度发送", re.IGNORECASE)


def bilingual(en: str, zh: str) -> Message:
    return Message(text=en, translations={"zh-CN": zh})


FULL = notice_text(
    heading=bilingual("Notice of an incident", "个人信息安全事件告知书"),
    opening=bilingual(
        "We tell you\nof an incident.\n\nIt is over.", "我们告知您一起事件。\n\n现已结束。"
    ),
    parts=(
        NoticePart(
            title=bilingual("Cause", "原因"), words=verbatim("A <b>file</b> & a link.\r\nOpen.")
        ),
        NoticePart(
            title=bilingual("Self-help", "您可以采取的措施"), words=bilingual("Watch.", "请留意。")
        ),
    ),
    closing=bilingual("We are sorry.", "深表歉意。"),
    contact=bilingual("Hotline 4000000000", "客服热线 4000000000"),
)


class AddressList:
    """The company's customer database: mail addresses by primary key."""

    def __init__(self, **addresses: str) -> None:
        self.now = addresses
        self.asked: list[list[str]] = []
        self.fault: Exception | None = None

    def __call__(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(list(keys))
        if self.fault:
            raise self.fault
        customers = {key: f"c{key.rpartition('/')[2]}" for key in keys}
        return {key: self.now[mail] for key, mail in customers.items() if mail in self.now}


@pytest.fixture
def addresses(post: Post) -> AddressList:
    """Provide mail addresses of the customers 1 and 2."""
    address_list = AddressList(c1=CANARY, c2="two@customers.example")
    post.addresses = {INDIVIDUAL_NOTICE: address_list}
    return address_list


def notice(post: Post, number: int, **more: Any) -> Notification:
    fields: dict[str, Any] = {
        "kind": INDIVIDUAL_NOTICE,
        "key": f"INC-2026-0001/courier/{number}",
        "recipient": f"subject:courier/{number}",
        "heading": FULL.heading,
        "line": _("Notice about {incident}", incident="INC-2026-0001"),
        "looked_up": True,
    }
    return Notification(**fields | more | {"text": more.get("text") or post.keep(FULL)})


def all_stored_texts(post: Post) -> str:
    """Return all rows of the state database as text."""
    tables = post.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert ("notification",) in tables
    return " ".join(
        str(row)
        for (table,) in tables
        for row in post.rows(
            f'SELECT t::text FROM "{table}" t'
        )  # table names of our own migrations
    )


def test_notice_to_customer_has_both_languages_in_plain_text_and_html(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    post.extra = {"reply_to": "privacy@courier.example", "from_email": "privacy@courier.example"}
    post.queue(notice(post, 1))
    assert post.deliver().sent == 1
    (received_mail,) = server.taken
    assert received_mail.recipient == CANARY
    mail = received_mail.mail
    assert mail["Subject"] == "个人信息安全事件告知书"
    assert mail["To"] == CANARY
    assert mail["From"] == mail["Reply-To"] == "privacy@courier.example"
    assert mail["List-Unsubscribe"] is None
    plain, html = (received_mail.text(kind).replace("\r\n", "\n") for kind in ("plain", "html"))
    assert re.findall(r'<div lang="([^"]+)"', html) == ["zh-CN", "en"]
    for text in (plain, html):
        assert not STAFF.search(text)
        assert "ParcelSeal" not in text
        assert text.index("尊敬的客户：") < text.index("Dear customer,")
        words = ["Cause", "Self-help", "Watch.", "We are sorry.", "Hotline 4000000000"]
        assert sorted(words, key=text.index) == words
        assert text.count("privacy@courier.example") == 2  # the sender, in each language
    assert "We tell you\nof an incident.\n\nIt is over.\n\nCause\n\nA <b>file</b>" in plain
    assert "a link.\nOpen.\n\nSelf-help\n" in plain
    assert not re.search(r"\n\n\n|u000d", plain)
    assert "<p>We tell you<br>of an incident.</p>\n<p>It is over.</p>" in html
    assert "<h1>Notice of an incident</h1>" in html
    assert "<h2>Cause</h2>\n<p>A &lt;b&gt;file&lt;/b&gt; &amp; a link.<br>Open.</p>" in html


def test_mails_with_same_notice_differ_only_in_recipient_date_and_id(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    post.queue(notice(post, 1), notice(post, 2))
    assert post.deliver().sent == 2
    first, second = (dict(mail.mail.items()) for mail in server.taken)
    assert {name for name in first if first[name] != second.get(name)} == {"To", "Message-ID"}
    assert {str(first["To"]), str(second["To"])} == {CANARY, "two@customers.example"}
    for mail in server.taken:
        names = [name.lower() for name in mail.mail]
        assert len(names) == len(set(names))
    bodies = {mail.content.split(b"\r\n\r\n", 1)[1] for mail in server.taken}
    assert len(bodies) == 1


def test_mail_with_a_notice_to_a_customer_contains_no_other_notice_or_notification(
    post: Post, server: Smtp
) -> None:
    first, second = post.keep(notice_text("first")), post.keep(notice_text("second"))
    for urgent in (False, True):
        more = {"urgent": urgent}
        post.queue(
            notification(f"{urgent}1", **more),
            notification(f"{urgent}2", **more, text=first),
            notification(f"{urgent}3", **more, text=second),
            notification(f"{urgent}4", **more, text=first),
        )
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.waiting) == (6, 8, 0)
    subjects = [str(mail.mail["Subject"]) for mail in server.taken]
    assert subjects.count(NOTICE_HEADING) == 4
    for mail in server.taken:
        kinds = set(re.findall(r"Course|first|second", mail.text("plain")))
        assert len(kinds) == 1
    post.queue(notification(9, text=first))
    assert post.deliver().waiting == 1  # the same text was sent today


def test_customer_address_that_a_workflow_looks_up_is_not_stored_in_database_or_step_record(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    post.rules = NotificationRules(workdays_only=False)
    for phase, answer in (("RCPT", f"450 {CANARY}"), ("DATA", DROP), ("RCPT", f"550 {CANARY}")):
        server.rule = lambda now, _, on=phase, said=answer: said if now == on else None
        post.queue(notice(post, 1, key=f"{answer[:3]}/1"))
        record = sending.send(post.office(), post.clock.now(), "6.2").record
        assert CANARY not in record.model_dump_json() + all_stored_texts(post)
        post.clock.on(days=1)
    addresses.fault = ValueError(f"no such row: {CANARY}")
    post.queue(notice(post, 1))
    record = sending.send(post.office(), post.clock.now(), "6.2").record
    assert set(post.states().values()) == {"in_doubt", "undeliverable", "pending"}
    assert "ValueError" in record.model_dump_json()
    assert CANARY not in record.model_dump_json() + all_stored_texts(post)
    addresses.fault = None
    server.rule = lambda _phase, _address: None
    assert post.deliver().sent >= 1
    assert server.taken[-1].recipient == CANARY
    assert CANARY not in all_stored_texts(post)


def test_notification_with_address_lookup_raises_error_if_it_contains_a_name_or_address(
    post: Post,
) -> None:
    for more in ({"address": CANARY}, {"name": "Wang"}):
        with pytest.raises(ValueError, match="no address and no name"):
            notice(post, 1, **more)
    with pytest.raises(ValueError, match="looked up"):
        notification(1, looked_up=True, address="", name="")
    with pytest.raises(ValueError, match="by mail"):
        notification(1, text=post.keep(FULL), channel="robot")
    post.queue(notice(post, 1))
    for change in (f"address = '{CANARY}'", "name = 'Wang'", "text = NULL", "channel = 'robot'"):
        with pytest.raises(IntegrityError, match=r"notification_(looked_up|letter)_check"):
            post.rows(f"UPDATE notification SET {change} RETURNING 1")


def test_customer_address_is_looked_up_again_for_every_attempt_to_send(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    assert post.queue(notice(post, 1), notice(post, 1)) == QueueCounts(new=1)
    assert post.deliver().deferred == 1
    server.rule = lambda _phase, _address: None
    addresses.now["c1"] = "new@customers.example"
    post.clock.on(minutes=1)
    assert post.deliver().sent == 1
    assert [mail.recipient for mail in server.taken] == ["new@customers.example"]
    assert post.queue(notice(post, 1)) == QueueCounts()
    post.clock.on(days=1)
    assert post.deliver().sent == 0
    assert len(addresses.asked) == 2


def test_notice_without_usable_address_is_undeliverable_and_can_be_queued_again(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    addresses.now |= {"c3": "", "c4": "nobody", "c5": " "}
    assert post.queue(*(notice(post, number) for number in range(1, 7))) == QueueCounts(new=6)
    delivery = post.deliver()
    assert (delivery.sent, delivery.undeliverable) == (2, 4)
    people = {
        recipient.recipient.rpartition("/")[2]: recipient.cause for recipient in delivery.recipients
    }
    missing = "no_address"
    assert people == {"3": missing, "4": "malformed", "5": missing, "6": missing}
    addresses.now |= {"c3": "three@customers.example"}
    again = [notice(post, number) for number in range(1, 7)]
    assert post.queue(*again) == QueueCounts(again=4)
    post.clock.on(days=1)
    assert (post.deliver().sent, len(server.taken)) == (1, 3)


def test_notice_to_a_customer_is_sent_even_if_its_mail_domain_is_not_allowed_for_staff(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    post.rules = NotificationRules(domains=("courier.example",))
    post.queue(notice(post, 1), notification(1, address="e1@other.example", text=post.keep(FULL)))
    delivery = post.deliver()
    assert (delivery.sent, delivery.recipients) == (1, [UnsentNotification(KIND, "E1", "domain")])


@pytest.mark.parametrize("missing", [False, True])
def test_only_the_notifications_of_a_workflow_are_delayed_if_its_address_lookup_fails(
    post: Post, server: Smtp, addresses: AddressList, missing: bool
) -> None:
    addresses.fault = ServiceError(f"The database of {CANARY} cannot be reached.")
    post.addresses = {} if missing else post.addresses
    post.queue(notice(post, 1), notification(1))
    delivery = sending.send(post.office(), post.clock.now(), "6.2")
    (finding, deferred) = delivery.record.findings
    error = "LookupError" if missing else "ServiceError"
    assert Translator("en").text(finding.message) == (
        "Notifications of this type are delayed: incident.individual. "
        "ParcelSeal could not confirm that they "
        "are still required, or could not look up the addresses of their recipients."
    )
    assert finding.for_engineers is not None
    assert Translator("en").text(finding.for_engineers) == (
        f"Error for the notification type `{INDIVIDUAL_NOTICE}`: `{error}`."
    )
    assert (deferred.code, delivery.retry_reason != "") == ("notices.deferred", True)
    assert len(server.taken) == 1
    post.addresses = {INDIVIDUAL_NOTICE: addresses}
    addresses.fault = None
    assert post.deliver().sent == 1


def test_address_is_not_looked_up_for_notice_that_is_no_longer_due(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    post.confirm = {INDIVIDUAL_NOTICE: lambda _keys: set()}
    post.queue(notice(post, 1))
    assert (post.deliver().withdrawn, addresses.asked) == (1, [])


def test_notice_is_sent_again_to_current_address_if_connection_was_lost_during_first_sending(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notice(post, 1), notice(post, 2))
    post.deliver()
    server.rule = lambda _phase, _address: None
    addresses.now = {"c1": "new@customers.example"}
    post.clock.on(minutes=1)
    delivery = post.deliver()
    assert (delivery.sent, delivery.undeliverable, delivery.in_doubt) == (1, 0, 1)
    assert server.taken[0].recipient == "new@customers.example"
    assert server.taken[0].message_id in {mail.message_id for mail in server.read[:2]}
    assert post.states()["INC-2026-0001/courier/2"] == "in_doubt"
    assert post.queue(notice(post, 1), notice(post, 2)) == QueueCounts()


def test_notice_is_not_sent_if_its_text_was_changed_in_database(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    post.queue(notice(post, 1))
    post.rows("UPDATE notification_text SET content = jsonb_set(content, '{heading,text}', '\"x\"')"
              " RETURNING 1")  # fmt: skip
    delivery = post.deliver()
    assert (delivery.sent, delivery.unavailable_kinds) == (0, {INDIVIDUAL_NOTICE: "TextChanged"})
    post.rows("UPDATE notification_text SET content = '{}' RETURNING 1")
    assert post.deliver().unavailable_kinds == {INDIVIDUAL_NOTICE: "TextChanged"}


def test_deliver_with_notices_false_sends_staff_notifications_and_leaves_notices_pending(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    server.rule = lambda phase, at: "450 busy" if (phase, at) == ("RCPT", CANARY) else None
    post.queue(notice(post, 1, urgent=True))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.clock.on(minutes=1)
    more = {"urgent": True, "kind": "incident.alert"}
    post.queue(notice(post, 2, urgent=True), notification(1, "Z9", **more))
    delivery = post.deliver(notices=False)
    assert (delivery.sent, delivery.deferred, delivery.sent_by_others) == (1, 0, 0)
    assert server.taken[0].recipient == "z9@courier.example"
    post.queue(notification(2, "Z9", **more))
    assert post.deliver().sent == 3
    assert server.taken[1].recipient == "z9@courier.example"
    server.stop()
    post.queue(notice(post, 3))
    assert post.deliver(notices=False).unusable_channels == {}  # the server is not even asked


def test_finding_about_undeliverable_notices_contains_their_number_but_no_recipients(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    del addresses, server
    post.queue(notice(post, 8), notice(post, 9))
    findings = sending.send(post.office(), post.clock.now(), "6.3").record.findings
    (mail,) = [each for each in findings if each.code == "notices.letters_undeliverable"]
    english = Translator("en").text
    assert (
        english(mail.message)
        == "2 notices to data subjects could not be sent (no address is registered)."
    )
    assert "Notify these data subjects in another way" in english(mail.action)
    assert "courier/8" not in mail.model_dump_json()
