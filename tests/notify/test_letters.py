"""Mail as it is received: headers, both parts, both languages, and nothing that was smuggled in."""

from __future__ import annotations

import re
from datetime import date
from email import message_from_bytes
from email.policy import default

import pytest

from include.messages import _, verbatim
from include.notify.letters import Item, Letter, Writer
from include.policy.rules import NoticeRules
from tests.notify.rig import THURSDAY, Post, notice
from tests.support.smtp import Received, Smtp

WEEKLY = "training.department"
HOSTILE = "Eve\r\nBcc: all@courier.example\r\n\r\n<script>alert(1)</script>\x00\u202e\x85end"


def received(post: Post, server: Smtp) -> Received:
    assert post.deliver().sent == 1
    (one,) = server.taken
    return one


def test_a_mail_has_its_headers_both_parts_and_both_languages(post: Post, server: Smtp) -> None:
    """Read by Python's own parser, as a mail program does."""
    overdue = notice(
        2,
        kind="partners.review",
        heading=_("Open findings"),
        line=verbatim("Review of partner 3"),
        due_on=date(2026, 11, 20),
        name="张伟",
    )
    post.extra = {"reply_to": "ask@courier.example", "unsubscribe_to": "stop@courier.example"}
    post.queue(notice(1, name="张伟", due_on=date(2026, 12, 1)), overdue)
    one = received(post, server)
    mail = one.mail
    assert mail["From"] == "Seal <seal@courier.example>"
    assert mail["To"] == "张伟 <e1@courier.example>"
    assert mail["Reply-To"] == "ask@courier.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Content-Language"] == "zh-CN, en"
    assert mail["List-Unsubscribe"] is None
    assert mail["Date"].datetime == THURSDAY
    assert mail["Date"].datetime.utcoffset().total_seconds() == 8 * 3600
    (row,) = post.rows("SELECT message_id FROM notice_message")
    assert mail["Message-ID"] == f"<{row[0]}>"
    assert row[0].startswith("20261126.")
    assert row[0].endswith("@courier.example")
    assert mail.get_content_type() == "multipart/alternative"
    assert "2" in mail["Subject"]
    plain, html = one.text("plain"), one.text("html")
    for text in (plain, html):
        assert text.index("张伟，您好") < text.index("Dear 张伟,")  # in the policy's order
        assert text.count("Review of partner 3") == 2
        assert "截止 2026-12-01" in text
        assert "due 2026-12-01" in text
        assert text.index("2026-11-20") < text.index("2026-12-01")  # what is due first, first
        assert "ask@courier.example" in text
    assert re.findall(r'lang="([^"]+)"', html) == ["zh-CN", "zh-CN", "en"]
    assert "color-scheme" in html
    assert "<img" not in html


def test_languages_are_those_of_the_policy(post: Post, server: Smtp) -> None:
    """In their order, and no other."""
    post.rules = NoticeRules(languages=("en",))
    post.queue(notice(1))
    one = received(post, server)
    assert one.mail["Content-Language"] == "en"
    assert one.mail["Subject"] == "Training that you have to take (1)"
    assert "您好" not in one.text("plain")


@pytest.mark.parametrize("duty", [False, True])
def test_only_what_may_be_refused_has_a_way_to_refuse_it(
    post: Post, server: Smtp, duty: bool
) -> None:
    """A digest with one duty in it has none."""
    post.rules = NoticeRules(may_opt_out=(WEEKLY,))
    post.extra = {"unsubscribe_to": "stop@courier.example"}
    post.queue(notice(1, kind=WEEKLY), *([notice(2)] if duty else []))
    one = received(post, server)
    if duty:
        assert one.mail["List-Unsubscribe"] is None
    else:
        expected = "<mailto:stop@courier.example?subject=unsubscribe%20E1%20training.department>"
        assert one.mail["List-Unsubscribe"].strip() == expected
        assert "refuse" in one.text("plain")


def test_hostile_names_make_neither_a_header_nor_markup(post: Post, server: Smtp) -> None:
    """Line breaks in a name, a heading, a line: one mail to one recipient, all of it text."""
    post.queue(
        notice(
            1,
            name=HOSTILE,
            heading=_("Training in {department} this week", department=HOSTILE),
            line=verbatim(HOSTILE),
        )
    )
    one = received(post, server)
    names = [name.lower() for name in one.mail]
    assert "bcc" not in names
    assert len(names) == len(set(names))
    assert one.recipient == "e1@courier.example"
    assert [to.addr_spec for to in one.mail["To"].addresses] == ["e1@courier.example"]
    assert not re.search(r"[\r\n\x00\u202e]", str(one.mail["Subject"]))
    html = one.text("html")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    for line in one.text("plain").splitlines():
        assert not line.startswith("Bcc")
    head = one.content.split(b"\r\n\r\n", 1)[0]
    assert re.search(rb"(?im)^bcc:", head) is None


@pytest.mark.parametrize(
    "name",
    [
        '"', "\\", "a, b", "a <b@courier.example>", "(comment)", "=?utf-8?b?5byg?=", "名" * 300,
        "e1@courier.example", "a\nb", "\x1b[31m", " ", "🚚",
    ],
)  # fmt: skip
def test_any_name_can_be_greeted(post: Post, server: Smtp, name: str) -> None:
    """What a mail address's syntax means something by is quoted."""
    post.queue(notice(1, name=name))
    one = received(post, server)
    (to,) = one.mail["To"].addresses
    assert to.addr_spec == "e1@courier.example"


def test_a_text_that_is_no_sentence_of_the_catalogue_stops_nobody(post: Post, server: Smtp) -> None:
    """Lone braces and fields without a value are shown as they are."""
    post.queue(notice(1, line=_("{a} {b:percent} {", a=1)), notice(2, line=_("{none}")))
    assert "{none}" in received(post, server).text("plain")


def letter(count: int) -> Letter:
    heading = _("Open findings").model_dump_json()
    items = [
        Item(n, "k", str(n), heading, verbatim(f"第 {n} 项 finding {n}").model_dump_json(), None)
        for n in range(count)
    ]
    return Letter("1@robot.invalid", "role:compliance", "", "chat", False, THURSDAY, items)


@pytest.mark.parametrize("count", [1, 5, 80, 400])
def test_a_chat_shows_what_its_robot_takes_and_counts_the_rest(count: int) -> None:
    """Both languages where they fit, else the first; never more bytes than allowed."""
    text = Writer(("zh-CN", "en"), "Asia/Shanghai").chat(letter(count), 2048)
    assert len(text.encode()) <= 2048
    shown = len(set(re.findall(r"^- 第 (\d+) 项", text, re.M)))
    more = re.search(r"另有 (\d+) 项", text)
    assert shown + (int(more.group(1)) if more else 0) == count
    assert ("Hello," in text) is (count <= 5)


def test_the_source_of_a_mail_has_short_lines_in_ascii(post: Post, server: Smtp) -> None:
    """As every server takes them."""
    post.queue(notice(1, name="张伟", line=verbatim("很长" * 2000)))
    content = received(post, server).content
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert message_from_bytes(content, policy=default).defects == []
