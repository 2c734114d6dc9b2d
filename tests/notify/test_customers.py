"""Letters to customers: what they say, and that nobody's address is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from include.messages import Message, _, verbatim
from include.notify import sending
from include.notify.claims import Unsent
from include.notify.notice import Notice
from include.notify.outbox import Queued
from include.notify.texts import LetterPart
from include.policy.rules import NoticeRules
from include.reports.i18n import Translator
from include.services.errors import ServiceError
from tests.notify.rig import KIND, LETTER, TOLD, Post, letter, notice
from tests.support.smtp import DROP, Smtp

CANARY = "canary.7f3@customers.example"
STAFF = re.compile(r"due|截止|Course|课程|policy for protecting|制度发送", re.IGNORECASE)


def both(en: str, zh: str) -> Message:
    return Message(text=en, translations={"zh-CN": zh})


FULL = letter(
    heading=both("Notice of an incident", "个人信息安全事件告知书"),
    opening=both(
        "We tell you\nof an incident.\n\nIt is over.", "我们告知您一起事件。\n\n现已结束。"
    ),
    parts=(
        LetterPart(title=both("Cause", "原因"), words=verbatim("A <b>file</b> & a link.\r\nOpen.")),
        LetterPart(title=both("Self-help", "您可以采取的措施"), words=both("Watch.", "请留意。")),
    ),
    closing=both("We are sorry.", "深表歉意。"),
    contact=both("Hotline 4000000000", "客服热线 4000000000"),
)


class AddressList:
    """The company's database of customers: addresses by primary key."""

    def __init__(self, **addresses: str) -> None:
        self.now = addresses
        self.asked: list[list[str]] = []
        self.fault: Exception | None = None

    def __call__(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(list(keys))
        if self.fault:
            raise self.fault
        customers = {key: f"c{key.rpartition('/')[2]}" for key in keys}
        return {key: self.now[one] for key, one in customers.items() if one in self.now}


@pytest.fixture
def addresses(post: Post) -> AddressList:
    """One of customers 1 and 2."""
    made = AddressList(c1=CANARY, c2="two@customers.example")
    post.addresses = {TOLD: made}
    return made


def told(post: Post, number: int, **more: Any) -> Notice:
    given: dict[str, Any] = {
        "kind": TOLD,
        "key": f"INC-2026-0001/courier/{number}",
        "recipient": f"subject:courier/{number}",
        "heading": FULL.heading,
        "line": _("Notice about {incident}", incident="INC-2026-0001"),
        "looked_up": True,
    }
    return Notice(**given | more | {"text": more.get("text") or post.keep(FULL)})


def everywhere(post: Post) -> str:
    """All that the state database keeps."""
    tables = post.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert ("notice",) in tables
    return " ".join(
        str(row)
        for (table,) in tables
        for row in post.rows(f'SELECT t::text FROM "{table}" t')  # names of our own
    )


def test_a_letter_has_its_text_in_both_languages_and_both_parts(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """Paragraphs as such; nothing of it is written for people at work."""
    post.extra = {"reply_to": "privacy@courier.example", "from_email": "privacy@courier.example"}
    post.queue(told(post, 1))
    assert post.deliver().sent == 1
    (one,) = server.taken
    assert one.recipient == CANARY
    mail = one.mail
    assert mail["Subject"] == "个人信息安全事件告知书"
    assert mail["To"] == CANARY
    assert mail["From"] == mail["Reply-To"] == "privacy@courier.example"
    assert mail["List-Unsubscribe"] is None
    plain, html = (one.text(kind).replace("\r\n", "\n") for kind in ("plain", "html"))
    assert re.findall(r'<div lang="([^"]+)"', html) == ["zh-CN", "en"]
    for text in (plain, html):
        assert not STAFF.search(text)
        assert "ParcelSeal" not in text
        assert text.index("尊敬的客户：") < text.index("Dear customer,")
        words = ["Cause", "Self-help", "Watch.", "We are sorry.", "Hotline 4000000000"]
        assert sorted(words, key=text.index) == words
        assert text.count("privacy@courier.example") == 2  # who sends it, in each language
    assert "We tell you\nof an incident.\n\nIt is over.\n\nCause\n\nA <b>file</b>" in plain
    assert "a link.\nOpen.\n\nSelf-help\n" in plain
    assert not re.search(r"\n\n\n|u000d", plain)
    assert "<p>We tell you<br>of an incident.</p>\n<p>It is over.</p>" in html
    assert "<h1>Notice of an incident</h1>" in html
    assert "<h2>Cause</h2>\n<p>A &lt;b&gt;file&lt;/b&gt; &amp; a link.<br>Open.</p>" in html


def test_mails_of_one_letter_differ_in_recipient_moment_and_id_alone(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """The rest is written once for all: each header stands there once, and nobody else's."""
    post.queue(told(post, 1), told(post, 2))
    assert post.deliver().sent == 2
    first, second = (dict(one.mail.items()) for one in server.taken)
    assert {name for name in first if first[name] != second.get(name)} == {"To", "Message-ID"}
    assert {str(first["To"]), str(second["To"])} == {CANARY, "two@customers.example"}
    for one in server.taken:
        names = [name.lower() for name in one.mail]
        assert len(names) == len(set(names))
    bodies = {one.content.split(b"\r\n\r\n", 1)[1] for one in server.taken}
    assert len(bodies) == 1


def test_a_letter_is_never_mixed_with_lines_or_with_another_letter(
    post: Post, server: Smtp
) -> None:
    """Each text once to each recipient, beside the digest of the day, urgent or not."""
    one, other = post.keep(letter("first")), post.keep(letter("second"))
    for urgent in (False, True):
        more = {"urgent": urgent}
        post.queue(
            notice(f"{urgent}1", **more),
            notice(f"{urgent}2", **more, text=one),
            notice(f"{urgent}3", **more, text=other),
            notice(f"{urgent}4", **more, text=one),
        )
    done = post.deliver()
    assert (done.sent, done.notices, done.waiting) == (6, 8, 0)
    subjects = [str(mail.mail["Subject"]) for mail in server.taken]
    assert subjects.count(LETTER) == 4
    for mail in server.taken:
        found = set(re.findall(r"Course|first|second", mail.text("plain")))
        assert len(found) == 1
    post.queue(notice(9, text=one))
    assert post.deliver().waiting == 1  # the same words, told today


def test_an_address_stands_nowhere_but_in_the_mail(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """After it was sent, refused, put off or cut: no table, no record, no error has it."""
    post.rules = NoticeRules(workdays_only=False)
    for phase, answer in (("RCPT", f"450 {CANARY}"), ("DATA", DROP), ("RCPT", f"550 {CANARY}")):
        server.rule = lambda now, _, on=phase, said=answer: said if now == on else None
        post.queue(told(post, 1, key=f"{answer[:3]}/1"))
        record = sending.send(post.office(), post.clock.now(), "6.2").record
        assert CANARY not in record.model_dump_json() + everywhere(post)
        post.clock.on(days=1)
    addresses.fault = ValueError(f"no such row: {CANARY}")
    post.queue(told(post, 1))
    record = sending.send(post.office(), post.clock.now(), "6.2").record
    assert set(post.states().values()) == {"in_doubt", "undeliverable", "pending"}
    assert "ValueError" in record.model_dump_json()
    assert CANARY not in record.model_dump_json() + everywhere(post)
    addresses.fault = None
    server.rule = lambda _phase, _address: None
    assert post.deliver().sent >= 1
    assert server.taken[-1].recipient == CANARY
    assert CANARY not in everywhere(post)


def test_nobody_may_queue_an_address_that_is_to_be_looked_up(post: Post) -> None:
    """Neither in Python nor in SQL; and a letter goes by mail."""
    for more in ({"address": CANARY}, {"name": "Wang"}):
        with pytest.raises(ValueError, match="no address and no name"):
            told(post, 1, **more)
    with pytest.raises(ValueError, match="looked up"):
        notice(1, looked_up=True, address="", name="")
    with pytest.raises(ValueError, match="by mail"):
        notice(1, text=post.keep(FULL), channel="robot")
    post.queue(told(post, 1))
    for change in (f"address = '{CANARY}'", "name = 'Wang'", "text = NULL", "channel = 'robot'"):
        with pytest.raises(IntegrityError, match=r"notice_(looked_up|letter)_check"):
            post.rows(f"UPDATE notice SET {change} RETURNING 1")


def test_an_address_is_looked_up_anew_with_every_try(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """A list that was corrected meanwhile counts; nobody is told twice."""
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    assert post.queue(told(post, 1), told(post, 1)) == Queued(new=1)
    assert post.deliver().deferred == 1
    server.rule = lambda _phase, _address: None
    addresses.now["c1"] = "new@customers.example"
    post.clock.on(minutes=1)
    assert post.deliver().sent == 1
    assert [one.recipient for one in server.taken] == ["new@customers.example"]
    assert post.queue(told(post, 1)) == Queued()
    post.clock.on(days=1)
    assert post.deliver().sent == 0
    assert len(addresses.asked) == 2


def test_who_cannot_be_reached_is_named_and_told_once_there_is_an_address(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """Missing, empty, malformed; queueing alone is no failure."""
    addresses.now |= {"c3": "", "c4": "nobody", "c5": " "}
    assert post.queue(*(told(post, number) for number in range(1, 7))) == Queued(new=6)
    done = post.deliver()
    assert (done.sent, done.undeliverable) == (2, 4)
    people = {one.recipient.rpartition("/")[2]: one.cause for one in done.recipients}
    missing = "no_address"
    assert people == {"3": missing, "4": "malformed", "5": missing, "6": missing}
    addresses.now |= {"c3": "three@customers.example"}
    again = [told(post, number) for number in range(1, 7)]
    assert post.queue(*again) == Queued(again=4)
    post.clock.on(days=1)
    assert (post.deliver().sent, len(server.taken)) == (1, 3)


def test_company_domains_are_no_matter_of_customers(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """notices.yaml says where mail to people at work may go."""
    post.rules = NoticeRules(domains=("courier.example",))
    post.queue(told(post, 1), notice(1, address="e1@other.example", text=post.keep(FULL)))
    done = post.deliver()
    assert (done.sent, done.recipients) == (1, [Unsent(KIND, "E1", "domain")])


@pytest.mark.parametrize("missing", [False, True])
def test_a_kind_whose_addresses_nobody_can_say_waits_alone(
    post: Post, server: Smtp, addresses: AddressList, missing: bool
) -> None:
    """Its database is down, or this office knows of none; the others go."""
    addresses.fault = ServiceError(f"The database of {CANARY} cannot be reached.")
    post.addresses = {} if missing else post.addresses
    post.queue(told(post, 1), notice(1))
    done = sending.send(post.office(), post.clock.now(), "6.2")
    (finding, deferred) = done.record.findings
    error = "LookupError" if missing else "ServiceError"
    assert Translator("en").text(finding.message) == (
        f"Nobody could say which notices of {TOLD} are still wanted, or where they go ({error}); "
        "they wait."
    )
    assert (deferred.code, done.again != "") == ("notices.deferred", True)
    assert len(server.taken) == 1
    post.addresses = {TOLD: addresses}
    addresses.fault = None
    assert post.deliver().sent == 1


def test_what_is_not_wanted_any_more_is_not_looked_up(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """The incident was cancelled: nobody's address is read."""
    post.confirm = {TOLD: lambda _keys: set()}
    post.queue(told(post, 1))
    assert (post.deliver().withdrawn, addresses.asked) == (1, [])


def test_a_letter_that_may_have_arrived_goes_to_the_address_of_now(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """Under the id of the first; where there is none now it stays in doubt, not told anew."""
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(told(post, 1), told(post, 2))
    post.deliver()
    server.rule = lambda _phase, _address: None
    addresses.now = {"c1": "new@customers.example"}
    post.clock.on(minutes=1)
    done = post.deliver()
    assert (done.sent, done.undeliverable, done.in_doubt) == (1, 0, 1)
    assert server.taken[0].recipient == "new@customers.example"
    assert server.taken[0].message_id in {one.message_id for one in server.read[:2]}
    assert post.states()["INC-2026-0001/courier/2"] == "in_doubt"
    assert post.queue(told(post, 1), told(post, 2)) == Queued()


def test_a_text_that_was_changed_since_it_was_kept_is_not_sent(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """People decided about the words that the digest names."""
    post.queue(told(post, 1))
    post.rows("UPDATE notice_text SET content = jsonb_set(content, '{heading,text}', '\"x\"')"
              " RETURNING 1")  # fmt: skip
    done = post.deliver()
    assert (done.sent, done.unsure) == (0, {TOLD: "TextChanged"})
    post.rows("UPDATE notice_text SET content = '{}' RETURNING 1")
    assert post.deliver().unsure == {TOLD: "TextChanged"}


def test_who_wakes_people_leaves_the_letters_to_others(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """Alerts alone, and first where both go."""
    server.rule = lambda phase, at: "450 busy" if (phase, at) == ("RCPT", CANARY) else None
    post.queue(told(post, 1, urgent=True))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.clock.on(minutes=1)
    more = {"urgent": True, "kind": "incident.alert"}
    post.queue(told(post, 2, urgent=True), notice(1, "Z9", **more))
    done = post.deliver(letters=False)
    assert (done.sent, done.deferred, done.in_hand) == (1, 0, 0)
    assert server.taken[0].recipient == "z9@courier.example"
    post.queue(notice(2, "Z9", **more))
    assert post.deliver().sent == 3
    assert server.taken[1].recipient == "z9@courier.example"
    server.stop()
    post.queue(told(post, 3))
    assert post.deliver(letters=False).down == {}  # the server is not even asked


def test_letters_that_could_not_be_sent_name_nobody_and_promise_no_next_run(
    post: Post, server: Smtp, addresses: AddressList
) -> None:
    """Whoever was told otherwise meanwhile would be told twice."""
    del addresses, server
    post.queue(told(post, 8), told(post, 9))
    found = sending.send(post.office(), post.clock.now(), "6.3").record.findings
    (one,) = [each for each in found if each.code == "notices.letters_undeliverable"]
    english = Translator("en").text
    assert english(one.message) == "Letters that could not be sent (no address is known): 2."
    assert "Tell these people otherwise" in english(one.action)
    assert "courier/8" not in one.model_dump_json()
