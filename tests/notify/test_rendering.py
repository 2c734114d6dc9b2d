"""The received mail: headers, plain text and HTML, both languages, and no injected content."""

from __future__ import annotations

import re
from datetime import date
from email import message_from_bytes
from email.policy import default

import pytest

from include.messages import _, verbatim
from include.notify.rendering import NotificationLine, OutgoingMessage, Writer
from include.policy.rules import NotificationRules
from tests.notify.notify_fixtures import THURSDAY, Post, notification
from tests.support.smtp import Received, Smtp

WEEKLY = "training.department"
HOSTILE = "Eve\r\nBcc: all@courier.example\r\n\r\n<script>alert(1)</script>\x00\u202e\x85end"


def received(post: Post, server: Smtp) -> Received:
    assert post.deliver().sent == 1
    (mail,) = server.taken
    return mail


def test_mail_has_headers_and_both_languages_in_plain_text_and_html(
    post: Post, server: Smtp
) -> None:
    overdue = notification(
        2,
        kind="partners.review",
        heading=_("Open findings"),
        line=verbatim("Review of partner 3"),
        due_on=date(2026, 11, 20),
        name="张伟",
    )
    post.extra = {"reply_to": "ask@courier.example", "unsubscribe_to": "stop@courier.example"}
    post.queue(notification(1, name="张伟", due_on=date(2026, 12, 1)), overdue)
    received_mail = received(post, server)
    mail = received_mail.mail
    assert mail["From"] == "Seal <seal@courier.example>"
    assert mail["To"] == "张伟 <e1@courier.example>"
    assert mail["Reply-To"] == "ask@courier.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Content-Language"] == "zh-CN, en"
    assert mail["List-Unsubscribe"] is None
    assert mail["Date"].datetime == THURSDAY
    assert mail["Date"].datetime.utcoffset().total_seconds() == 8 * 3600
    (row,) = post.rows("SELECT message_id FROM notification_message")
    assert mail["Message-ID"] == f"<{row[0]}>"
    assert row[0].startswith("20261126.")
    assert row[0].endswith("@courier.example")
    assert mail.get_content_type() == "multipart/alternative"
    assert "2" in mail["Subject"]
    plain, html = received_mail.text("plain"), received_mail.text("html")
    for text in (plain, html):
        assert text.index("张伟，您好") < text.index("Dear 张伟,")  # in the policy's order
        assert text.count("Review of partner 3") == 2
        assert "截止日期 2026-12-01" in text
        assert "due 2026-12-01" in text
        assert text.index("2026-11-20") < text.index("2026-12-01")  # sorted by due date
        assert "ask@courier.example" in text
    assert re.findall(r'lang="([^"]+)"', html) == ["zh-CN", "zh-CN", "en"]
    assert "color-scheme" in html
    assert "<img" not in html


def test_mail_has_languages_of_the_policy_pack(post: Post, server: Smtp) -> None:
    post.rules = NotificationRules(languages=("en",))
    post.queue(notification(1))
    mail = received(post, server)
    assert mail.mail["Content-Language"] == "en"
    assert mail.mail["Subject"] == "Your mandatory training (1)"
    assert "您好" not in mail.text("plain")


@pytest.mark.parametrize("duty", [False, True])
def test_mail_has_unsubscribe_header_only_for_optional_kinds(
    post: Post, server: Smtp, duty: bool
) -> None:
    post.rules = NotificationRules(may_opt_out=(WEEKLY,))
    post.extra = {"unsubscribe_to": "stop@courier.example"}
    post.queue(notification(1, kind=WEEKLY), *([notification(2)] if duty else []))
    mail = received(post, server)
    if duty:
        assert mail.mail["List-Unsubscribe"] is None
    else:
        expected = "<mailto:stop@courier.example?subject=unsubscribe%20E1%20training.department>"
        assert mail.mail["List-Unsubscribe"].strip() == expected
        assert "To stop messages" in mail.text("plain")


def test_line_breaks_and_script_tags_in_texts_add_no_header_or_markup_to_a_mail(
    post: Post, server: Smtp
) -> None:
    post.queue(
        notification(
            1,
            name=HOSTILE,
            heading=_("Training in {department} this week", department=HOSTILE),
            line=verbatim(HOSTILE),
        )
    )
    mail = received(post, server)
    names = [name.lower() for name in mail.mail]
    assert "bcc" not in names
    assert len(names) == len(set(names))
    assert mail.recipient == "e1@courier.example"
    assert [to.addr_spec for to in mail.mail["To"].addresses] == ["e1@courier.example"]
    assert not re.search(r"[\r\n\x00\u202e]", str(mail.mail["Subject"]))
    html = mail.text("html")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    for line in mail.text("plain").splitlines():
        assert not line.startswith("Bcc")
    head = mail.content.split(b"\r\n\r\n", 1)[0]
    assert re.search(rb"(?im)^bcc:", head) is None


@pytest.mark.parametrize(
    "name",
    [
        '"', "\\", "a, b", "a <b@courier.example>", "(comment)", "=?utf-8?b?5byg?=", "名" * 300,
        "e1@courier.example", "a\nb", "\x1b[31m", " ", "🚚",
    ],
)  # fmt: skip
def test_mail_has_valid_address_if_recipient_name_contains_quotes_line_breaks_or_emoji(
    post: Post, server: Smtp, name: str
) -> None:
    post.queue(notification(1, name=name))
    mail = received(post, server)
    (to,) = mail.mail["To"].addresses
    assert to.addr_spec == "e1@courier.example"


def test_notification_line_with_invalid_placeholders_is_sent_unchanged(
    post: Post, server: Smtp
) -> None:
    post.queue(notification(1, line=_("{a} {b:percent} {", a=1)), notification(2, line=_("{none}")))
    assert "{none}" in received(post, server).text("plain")


def notice_text(count: int) -> OutgoingMessage:
    heading = _("Open findings").model_dump_json()
    items = [
        NotificationLine(
            n, "k", str(n), heading, verbatim(f"第 {n} 项 finding {n}").model_dump_json(), None
        )
        for n in range(count)
    ]
    return OutgoingMessage("1@robot.invalid", "role:compliance", "", "chat", False, THURSDAY, items)


@pytest.mark.parametrize("count", [1, 5, 80, 400])
def test_chat_message_is_cut_to_its_size_limit_and_contains_number_of_omitted_items(
    count: int,
) -> None:
    text = Writer(("zh-CN", "en"), "Asia/Shanghai").chat(notice_text(count), 2048)
    assert len(text.encode()) <= 2048
    shown = len(set(re.findall(r"^- 第 (\d+) 项", text, re.M)))
    more = re.search(r"另有 (\d+) 项", text)
    assert shown + (int(more.group(1)) if more else 0) == count
    assert ("Hello," in text) is (count <= 5)


def test_mail_source_is_ascii_with_lines_of_at_most_998_bytes(post: Post, server: Smtp) -> None:
    post.queue(notification(1, name="张伟", line=verbatim("很长" * 2000)))
    content = received(post, server).content
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert message_from_bytes(content, policy=default).defects == []
