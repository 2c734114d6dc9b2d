"""The step that sends: its record tells the truth of the whole run, and names nobody's address."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Outcome, StepRecord
from include.messages import verbatim
from include.notify import sending
from include.notify.notice import to_role
from include.notify.sending import messages
from include.policy.rules import Role
from include.reports.i18n import Translator
from include.reports.model import Paragraph, Table
from include.services.errors import ServiceError
from tests.notify.rig import HEADING, KIND, THURSDAY, Post, notice
from tests.support.robots import RobotServer
from tests.support.smtp import DROP, Smtp

TITLES = {"en": "Compliance", "zh-CN": "合规部门"}


def send(post: Post) -> sending.Sending:
    return sending.send(post.office(), THURSDAY, "6.2")


def figures(record: StepRecord) -> dict[str, float | int | None]:
    return {one.name.removeprefix("notices."): one.value for one in record.metrics}


def test_a_good_day_has_no_finding(post: Post, server: Smtp) -> None:
    """What was sent, by kind; what waits for its time is no finding either."""
    post.queue(notice(1), notice(2), notice(1, "E2", kind="partners.review"))
    done = send(post)
    assert done.again == ""
    assert done.record.outcome is Outcome.PASS
    assert done.record.findings == []
    assert figures(done.record) == {"sent": 2, "deferred": 0, "undeliverable": 0, "in_doubt": 0}
    assert done.record.data["kinds"] == [["partners.review", 1, 1], [KIND, 2, 1]]
    post.queue(notice(3))
    assert send(post).record.data["waiting"] == 1


def test_what_could_not_be_sent_is_named_by_staff_number(post: Post, server: Smtp) -> None:
    """By cause; also what an earlier try of the task found, and never an address."""
    server.rule = lambda phase, at: (
        "550 5.1.1 unknown e3@" if (phase, at[:2]) == ("RCPT", "e3") else None
    )
    post.queue(notice(1, address=""), notice(1, "E2", address=""), notice(1, "E3"), notice(1, "E4"))
    first, second = send(post), send(post)
    assert first.record.findings == second.record.findings
    assert figures(second.record)["sent"] == 1
    assert second.record.outcome is Outcome.ATTENTION
    assert second.again == ""
    said = [Translator("en").text(one.message) for one in second.record.findings]
    assert said == [
        "Notices that could not be sent (no address is known): 2, for E1, E2.",
        "Notices that could not be sent (the server refused it: 550 5.1.1): 1, for E3.",
    ]
    assert "@" not in second.record.model_dump_json()


def test_a_server_that_is_down_is_worth_another_try(post: Post, server: Smtp) -> None:
    """The record of the last one says that nothing is lost."""
    post.queue(notice(1))
    server.stop()
    done = send(post)
    assert "mail" in done.again
    assert [one.code for one in done.record.findings] == ["notices.server_down", "notices.deferred"]
    assert done.record.outcome is Outcome.ATTENTION
    server.start()
    done = send(post)
    assert (done.again, done.record.outcome) == ("", Outcome.PASS)
    assert figures(done.record)["sent"] == 1


def test_a_refused_sender_is_told_with_its_code(post: Post, server: Smtp) -> None:
    """What the server calls it helps who mends it."""
    server.rule = lambda phase, _: "535 5.7.8 sesame" if phase == "MAIL" else None
    post.queue(notice(1))
    said = Translator("en").text(send(post).record.findings[0].message)
    assert said == "The server of mail could not be used (535 5.7.8)."


def test_doubts_and_kinds_that_nobody_can_confirm_are_findings(
    post: Post, server: Smtp, robots: RobotServer
) -> None:
    """A robot that may have been told; a database that cannot be asked."""

    def unsure(_keys: Sequence[str]) -> set[str]:
        raise ServiceError("The database of courses cannot be reached.")

    post.robots = robots
    robots.answer = "drop"
    post.queue(notice(1, kind="partners.review", channel="robot", address="chat"), notice(1))
    post.confirm = {KIND: unsure}
    done = send(post)
    assert [one.code for one in done.record.findings] == [
        "notices.in_doubt",
        "notices.unsure",
        "notices.deferred",
    ]
    assert done.again
    assert figures(done.record)["in_doubt"] == 1


def test_a_cut_line_is_worth_another_try(post: Post, server: Smtp) -> None:
    """The copy is sent within the run."""
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notice(1))
    assert send(post).again
    server.rule = lambda _phase, _address: None
    post.clock.on(minutes=1)
    assert send(post).again == ""


def test_a_report_has_a_section_of_messages(post: Post, server: Smtp) -> None:
    """Sent by kind, undelivered by recipient; a step that did not finish says so."""
    many = [notice(1, f"E{number:04}", address="") for number in range(600)]
    post.queue(notice(1), *many)
    section = messages(send(post).record)
    tables = {
        Translator("en").text(one.caption): one.rows
        for one in section.blocks
        if isinstance(one, Table)
    }
    assert tables["Sent"] == [[KIND, 1, 1]]
    assert len(tables["Could not be delivered"]) == 500
    last = section.blocks[-1]
    assert isinstance(last, Paragraph)
    assert Translator("en").text(last.text) == "And 100 more: ./parcelseal notices list."
    unfinished = messages(StepRecord(step="send", outcome=Outcome.FAIL))
    assert len(unfinished.blocks) == 1


def test_a_role_is_told_at_every_address_and_in_its_chat(
    post: Post, server: Smtp, robots: RobotServer
) -> None:
    """Each once; a role without any is reported."""
    post.robots = robots
    role = Role(id="compliance", title=TITLES, mail=("a@b.example", "c@b.example"), robot="chat")
    nobody = Role(id="nobody", title=TITLES)
    line = verbatim("one")
    words = {"kind": KIND, "key": "k", "heading": HEADING, "line": line}
    post.queue(*to_role(role, **words), *to_role(nobody, **words | {"key": "n"}))
    done = post.deliver()
    assert (done.sent, len(robots.texts)) == (3, 1)
    assert sorted(one.recipient for one in server.taken) == ["a@b.example", "c@b.example"]
    assert post.causes()["n"] == "no_address"
    assert set(post.states()) == {"k", "k#1", "k#robot", "n"}
