"""What has to be so of every incident that was led, checked without ParcelSeal's own code."""

from __future__ import annotations

import email
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr
from functools import cache
from pathlib import Path
from typing import Any, cast

from tests.e2e.incidents.led import Played, assigned
from tests.e2e.incidents.sample import Sample
from tests.e2e.incidents.script import (
    ACTION,
    DUTY,
    IMPACT,
    LESSONS,
    OTHERWISE,
    WHY_TAKEN_OFF,
)

GRADES = {"general": ("General", "一般"), "larger": ("Larger", "较大")}
ROLES = {
    "information@courier.example": 1,
    "data@courier.example": 1,
    "compliance@courier.example": 2,
    "management@courier.example": 1,
}
"""How many duties each role of the pack answers for."""
ANY_TIME = {"team_called", "woken", "unanswered", "handed_over", "pressed_again"}
PARTS = ("harm", "measures", "self_help")
LANGUAGES = ("en", "zh-CN")
KINDS = ("docx", "html", "pdf")
_WORDS = re.compile(r"[A-Za-z]{3,}(?:[ ,;:]+[A-Za-z]{3,}){2,}")  # three English words in a row
_DUE = re.compile(r"\d\d:\d\d UTC\S* \|")
_COMMAND = re.compile(r"\./parcelseal[ a-zA-Z]+")  # to be typed as it stands
_FREE = (
    *(IMPACT[name] for name in IMPACT if name.endswith("_en")),
    *(LESSONS, ACTION, OTHERWISE, WHY_TAKEN_OFF, "Nothing was sold"),
)
"""What people entered in one language only, or in each: it is shown as it was entered."""


def timeline_holds(played: Played) -> None:
    """Worked out by the rule of docs/incidents.md: canonical JSON, SHA-256, each with the last."""
    previous = "0" * 64
    for place, line in enumerate(played.timeline, 1):
        entry = dict(line)
        sha256 = entry.pop("sha256")
        canonical = json.dumps(
            entry, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        ).encode()
        assert (entry["place"], entry["incident"]) == (place, played.number)
        assert entry["previous"] == previous
        assert hashlib.sha256(canonical).hexdigest() == sha256
        previous = sha256


def timeline_is_as_played(played: Played) -> None:
    """Its kinds in order, beside what may come at any time; each answer by who gave it."""
    kinds = [one["kind"] for one in played.timeline if one["kind"] not in ANY_TIME]
    assert kinds == list(played.script.timeline), kinds
    every = [one["kind"] for one in played.timeline]
    assert every.count("team_called") == 1  # by whoever's mail left: all send what all queued
    assert every.index("team_called") < every.index("contained")
    answered = {
        (one["data"]["step"], one["data"].get("authority", "")): one["by"]
        for one in played.timeline
        if "step" in one["data"] and one["kind"] not in ("refused", "unanswered")
    }
    authority = {-1: "", 0: "cac", 1: "postal"}
    for move, _page in played.pages:
        who = answered[move.task, authority[move.index]]
        assert who in played.team[move.duty or DUTY[move.task]]


def asked_are_the_duty_and_nobody_else(played: Played) -> None:
    """By the staff table; without suspects, and without who wrote what is decided on."""
    for move, page in played.pages:
        out = {*played.script.suspects, *move.without}
        expected = set(played.team[DUTY[move.task]]) - out
        if move.duty:  # after nobody answered
            expected |= {*played.team["command"], *played.team["management"]}
        assert set(assigned(page)) == expected, move
        for who in expected:
            assert who in page["body"]
    for suspect in played.script.suspects:
        assert all(suspect not in assigned(page) for _move, page in played.pages)


def nobody_else_was_let_in(played: Played) -> None:
    """Whoever was not asked was refused, at every step."""
    assert {task for task, _who in played.refused} == set(DUTY)
    assert set(played.refused.values()) == {403}
    if played.script.suspects:
        assert {who for _task, who in played.refused} == set(played.script.suspects)


def pages_say_what_is_due(played: Played) -> None:
    """In both languages, by when, what an answer before did wrong; and no customer's value."""
    for move, page in played.pages:
        body = page["body"]
        assert "### 中文" in body
        assert "### English" in body
        assert played.number in page["subject"]
        assert _DUE.search(body)
        for words in move.shows:
            assert words in body, (move, body)
    title, zh = played.script.title
    contain = played.page("contain")
    assert title in contain["subject"]
    assert zh in contain["subject"]


def scope_is_the_samples(played: Played) -> None:
    """People, records by collection, and the frozen list, by plain SQL on the sample."""
    steps = {one["step"]: one["data"] for one in played.result["steps"]}
    (counted,) = steps["assess"]["scope"]["counted"]
    affected = played.script.affected
    found = {name: count for name, count in counted["records"].items() if count}
    assert counted["subjects"] == len(affected.people) > 0
    assert found == {name: count for name, count in affected.records.items() if count}
    assert counted["not_found"] == played.script.not_found
    preserved = steps["preserve"]
    assert preserved["list_sha256"] == affected.list_sha256
    assert preserved["holds"] == {"subject": len(affected.people)}


def evidence_is_held(played: Played, sample_state: Sample) -> None:
    """A legal hold on each affected person, by the case's number."""
    query = (
        "SELECT value FROM legal_hold WHERE case_ref = %(number)s AND released_at IS NULL "
        "AND kind = 'subject'"
    )
    held = {one for (one,) in sample_state.rows(query, {"number": played.number})}
    assert held == {f"courier/{one}" for one in played.script.affected.people}


def clocks_ran_out_as_played(played: Played) -> None:
    """Those of the script and no other; the run is red for them, and for nothing else."""
    findings = played.result["findings"]
    late = {one["subject"] for one in findings if one["code"] == "incident.clock_ran_out"}
    assert late == played.script.late
    others = {one["code"] for one in findings} - {"incident.clock_ran_out"}
    unneeded = set() if all(played.script.reported) else {"incident.report_not_needed"}
    assert {one for one in others if not one.startswith("notices.")} == unneeded
    expected = ("fail", "failed") if late else ("attention", "success")  # mail is written to files
    assert (played.result["outcome"], played.state) == expected
    figures = {one["name"]: one["value"] for one in played.result["metrics"]}
    assert figures["incident.clocks_ran_out"] == len(late)
    assert figures["incident.people_affected"] == len(played.script.affected.people)


def documents_lay_there_before(played: Played) -> None:
    """Each report in its sealed bundle while the page asked to hand it in: all forms, languages."""
    names = {("report", 0): "first-cac", ("report", 1): "first-postal"}
    names |= {("report_rest", 0): "rest-cac", ("report_rest", 1): "rest-postal"}
    names["summary", -1] = "summary"
    kinds = [one for one in KINDS if played.script.pdf or one != "pdf"]
    for key, name in names.items():
        there = played.documents[key]
        wanted = {f"{name}.{language}.{kind}" for language in LANGUAGES for kind in kinds}
        assert wanted == {one for one in there if one.startswith(f"{name}.")}, key
        assert {"SHA256SUMS", "SHA256SUMS.sig", "result.json"} <= set(there)


def reports_say_it_in_both_languages(played: Played) -> None:
    """Type, grade, number, people, what happened; in Chinese nothing is left in English."""
    script = played.script
    for place, language in enumerate(LANGUAGES):
        page = _text((played.bundle / f"report.{language}.html").read_text())
        for words in (
            script.title[place],
            GRADES[script.grade][place],
            played.number,
            f"{len(script.affected.people):,}",
            script.form["what"],
            LESSONS,
        ):
            assert words in page, (language, words)
    left = page
    said = (script.form["what"], script.form.get("noticed_by", "-"), *script.cause, *_FREE)
    for words in (*said, *_reasons(played)):
        left = left.replace(words, " ")
    assert _WORDS.findall(left) == []
    assert (played.bundle / "report.en.pdf").exists() is script.pdf


def approval_is_bound(played: Played) -> None:
    """To the digest that the page showed, by who decided."""
    (approval,) = played.result["approvals"]
    page = played.page("decide")
    assert approval["sha256"] in page["body"]
    assert approval["decision"] == ("Approve" if played.script.tell else "Reject")
    assert approval["decided_by"] in played.team["management"]


def team_was_called(played: Played) -> None:
    """Each role's address, urgently, once for each of its duties, in both languages."""
    found = {}
    for mail in mails(played.home):
        address = parseaddr(mail["To"])[1]
        english = text_of(mail, "plain").split("=" * 40)[-1]
        calls = [
            line
            for line in english.splitlines()
            if "You are called" in line and f"{played.number} " in line
        ]
        if calls:
            assert address not in found  # once
            found[address] = len(calls)
            assert mail["Subject"].startswith("紧急")
            assert played.script.title[1] in text_of(mail, "plain")
    assert found == ROLES


def letters_went_to_who_has_an_address(played: Played) -> None:
    """Once each, in both languages, with every part that the law asks for; all alike."""
    sent = [one for one in mails(played.home) if _is_letter_of(played, one)]
    assert sorted(parseaddr(one["To"])[1] for one in sent) == sorted(played.script.letters.values())
    if not sent:
        return
    (plain,) = {text_of(one, "plain") for one in sent}  # no word of it is about one of them
    (page,) = {text_of(one, "html") for one in sent}
    for words in (
        *played.script.cause,
        *(IMPACT[f"{part}_{one}"] for part in PARTS for one in ("zh", "en")),
        *("个人信息安全事件告知书", "Notice of a security incident"),
        *("可能涉及的您的个人信息", "Which information of yours may be affected"),
        *("privacy@courier.example", "姓名", "phone number"),
    ):
        assert words in plain
        assert words in page
    for one in sent:
        assert one["Content-Language"] == "zh-CN, en"
        assert played.number not in one["Subject"]


def corrective_action_is_a_finding(played: Played, sample_state: Sample) -> None:
    """With its owner and its day."""
    query = "SELECT kind, owner, what FROM finding WHERE reference LIKE %(reference)s"
    ((kind, owner, what),) = sample_state.rows(query, {"reference": f"{played.number}/%"})
    assert (kind, owner) == ("incident", "data_engineering")
    assert ACTION in json.dumps(what)


def _is_letter_of(played: Played, mail: EmailMessage) -> bool:
    own = mail["To"].endswith("@courier.example")
    return not own and played.script.cause[0] in text_of(mail, "plain")


def _reasons(played: Played) -> Iterator[str]:
    for move, _page in played.pages:
        for value in move.entered.values():
            if isinstance(value, str) and " " in value:
                yield value


def _text(page: str) -> str:
    """What is read of a page."""
    page = re.sub(r"<(style|script|svg|code|pre)\b.*?</\1>", " ", page, flags=re.DOTALL)
    page = re.sub(r"<[^>]+>", "\n", page)
    return _COMMAND.sub(" ", html.unescape(page))


@cache
def _mails(folder: Path, count: int) -> tuple[EmailMessage, ...]:
    del count
    return tuple(
        cast("EmailMessage", email.message_from_bytes(one.read_bytes(), policy=default))
        for one in sorted(folder.glob("*.eml"))
    )


def mails(home: Path) -> tuple[EmailMessage, ...]:
    """Every mail that the local server took."""
    folder = home / "mail"
    return _mails(folder, len(list(folder.glob("*.eml"))))


def text_of(mail: EmailMessage, kind: str) -> str:
    """A part of a mail."""
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def moment(text: str) -> datetime:
    """A moment of a timeline."""
    return datetime.fromisoformat(text)


def entry(played: Played, kind: str) -> Mapping[str, Any]:
    """The last entry of a kind."""
    return [one for one in played.timeline if one["kind"] == kind][-1]
