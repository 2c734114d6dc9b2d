"""Checks of a scripted incident that do not use ParcelSeal's own code."""

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

from tests.e2e.incidents.incident_driver import Played, assigned
from tests.e2e.incidents.incident_scripts import (
    ACTION,
    DUTY,
    IMPACT,
    LESSONS,
    OTHERWISE,
    WHY_TAKEN_OFF,
)
from tests.e2e.incidents.sample_queries import Sample

GRADES = {"general": ("General", "一般"), "larger": ("Larger", "较大")}
ROLES = {
    "information@courier.example": 1,
    "data@courier.example": 1,
    "compliance@courier.example": 2,
    "management@courier.example": 1,
}
"""Number of duties of each role in the pack."""
ANY_TIME = {"team_called", "woken", "unanswered", "handed_over", "pressed_again"}
PARTS = ("harm", "measures", "self_help")
LANGUAGES = ("en", "zh-CN")
KINDS = ("docx", "html", "pdf")
_WORDS = re.compile(r"[A-Za-z]{3,}(?:[ ,;:]+[A-Za-z]{3,}){2,}")  # three English words in a row
_DUE = re.compile(r"\d\d:\d\d UTC\S* \|")
_COMMAND = re.compile(r"\./parcelseal[ a-zA-Z]+")  # commands are English in every language
_FREE = (
    *(IMPACT[name] for name in IMPACT if name.endswith("_en")),
    *(LESSONS, ACTION, OTHERWISE, WHY_TAKEN_OFF, "Nothing was sold"),
)
"""Texts that people entered; reports show them as entered in any language."""


def check_timeline_digests(played: Played) -> None:
    """Recompute the hash chain of the timeline (docs/explanation/incident-evidence.md)."""
    previous = "0" * 64
    for position, line in enumerate(played.timeline, 1):
        entry = dict(line)
        sha256 = entry.pop("sha256")
        canonical = json.dumps(
            entry, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        ).encode()
        assert (entry["place"], entry["incident"]) == (position, played.number)
        assert entry["previous"] == previous
        assert hashlib.sha256(canonical).hexdigest() == sha256
        previous = sha256


def check_timeline_kinds_and_authors(played: Played) -> None:
    """Check the order and the authors of the timeline's entries.

    Kinds of entries that may occur at any time are left out of the order.
    """
    kinds = [entry["kind"] for entry in played.timeline if entry["kind"] not in ANY_TIME]
    assert kinds == list(played.script.timeline), kinds
    all_kinds = [entry["kind"] for entry in played.timeline]
    assert (
        all_kinds.count("team_called") == 1
    )  # any run may record it, since each run sends all queued mails
    assert all_kinds.index("team_called") < all_kinds.index("contained")
    answered = {
        (entry["data"]["step"], entry["data"].get("authority", "")): entry["by"]
        for entry in played.timeline
        if "step" in entry["data"] and entry["kind"] not in ("refused", "unanswered")
    }
    authority = {-1: "", 0: "cac", 1: "postal"}
    for move, _page in played.pages:
        author = answered[move.task, authority[move.index]]
        assert author in played.team[move.duty or DUTY[move.task]]


def check_assigned_people(played: Played) -> None:
    """Check that each required action is assigned to the people of its duty.

    Suspects, and people whom the script excludes from a step, must not be assigned.
    """
    for move, page in played.pages:
        excluded = {*played.script.suspects, *move.without}
        expected = set(played.team[DUTY[move.task]]) - excluded
        if move.duty:  # the duty after nobody answered in time
            expected |= {*played.team["command"], *played.team["management"]}
        assert set(assigned(page)) == expected, move
        for account in expected:
            assert account in page["body"]
    for suspect in played.script.suspects:
        assert all(suspect not in assigned(page) for _move, page in played.pages)


def check_refused_people(played: Played) -> None:
    """Check that the answers of people who are not assigned were refused at every step."""
    assert {task for task, _account in played.refused} == set(DUTY)
    assert set(played.refused.values()) == {403}
    if played.script.suspects:
        assert {account for _task, account in played.refused} == set(played.script.suspects)


def check_pages(played: Played) -> None:
    """Check that the pages of required actions have both languages and deadlines.

    Check also that each page has the texts that the script expects.
    """
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


def check_scope(played: Played) -> None:
    """Compare affected people, records and the frozen list with plain SQL on the sample."""
    steps = {step["step"]: step["data"] for step in played.result["steps"]}
    (counted,) = steps["assess"]["scope"]["counted"]
    affected = played.script.affected
    records = {name: count for name, count in counted["records"].items() if count}
    assert counted["subjects"] == len(affected.people) > 0
    assert records == {name: count for name, count in affected.records.items() if count}
    assert counted["not_found"] == played.script.not_found
    preserved = steps["preserve"]
    assert preserved["list_sha256"] == affected.list_sha256
    assert preserved["holds"] == {"subject": len(affected.people)}


def check_holds(played: Played, sample_state: Sample) -> None:
    """Check that each affected person has a legal hold with the incident's number."""
    query = (
        "SELECT value FROM legal_hold WHERE case_ref = %(number)s AND released_at IS NULL "
        "AND kind = 'subject'"
    )
    held_values = {value for (value,) in sample_state.rows(query, {"number": played.number})}
    assert held_values == {f"courier/{person}" for person in played.script.affected.people}


def check_missed_time_limits(played: Played) -> None:
    """Check that exactly the time limits that the script names expired.

    Only these time limits may make the run fail.
    """
    findings = played.result["findings"]
    late = {
        finding["subject"] for finding in findings if finding["code"] == "incident.clock_ran_out"
    }
    assert late == played.script.late
    others = {finding["code"] for finding in findings} - {"incident.clock_ran_out"}
    unneeded = set() if all(played.script.reported) else {"incident.report_not_needed"}
    assert {code for code in others if not code.startswith("notices.")} == unneeded
    expected = ("fail", "failed") if late else ("attention", "success")  # mail is written to files
    assert (played.result["outcome"], played.state) == expected
    figures = {metric["name"]: metric["value"] for metric in played.result["metrics"]}
    assert figures["incident.clocks_ran_out"] == len(late)
    assert figures["incident.people_affected"] == len(played.script.affected.people)


def check_sealed_documents(played: Played) -> None:
    """Check that each report was sealed in all formats and languages when its page was shown."""
    names = {("report", 0): "first-cac", ("report", 1): "first-postal"}
    names |= {("report_rest", 0): "rest-cac", ("report_rest", 1): "rest-postal"}
    names["summary", -1] = "summary"
    kinds = [kind for kind in KINDS if played.script.pdf or kind != "pdf"]
    for key, name in names.items():
        file_names = played.documents[key]
        expected = {f"{name}.{language}.{kind}" for language in LANGUAGES for kind in kinds}
        assert expected == {
            file_name for file_name in file_names if file_name.startswith(f"{name}.")
        }, key
        assert {"SHA256SUMS", "SHA256SUMS.sig", "result.json"} <= set(file_names)


def check_report_texts(played: Played) -> None:
    """Check that the report states the facts in each language.

    The Chinese report must not contain English words.
    """
    script = played.script
    for index, language in enumerate(LANGUAGES):
        page = _text((played.bundle / f"report.{language}.html").read_text())
        for words in (
            script.title[index],
            GRADES[script.grade][index],
            played.number,
            f"{len(script.affected.people):,}",
            script.form["what"],
            LESSONS,
        ):
            assert words in page, (language, words)
    remaining = page
    entered_texts = (script.form["what"], script.form.get("noticed_by", "-"), *script.cause, *_FREE)
    for words in (*entered_texts, *_reasons(played)):
        remaining = remaining.replace(words, " ")
    assert _WORDS.findall(remaining) == []
    assert (played.bundle / "report.en.pdf").exists() is script.pdf


def check_approval(played: Played) -> None:
    """Check that the approval has the digest of the shown page and that the management decided."""
    (approval,) = played.result["approvals"]
    page = played.page("decide")
    assert approval["sha256"] in page["body"]
    assert approval["decision"] == ("Approve" if played.script.tell else "Reject")
    assert approval["decided_by"] in played.team["management"]


def check_team_call(played: Played) -> None:
    """Check that each role got one urgent mail in both languages.

    The mail has one line for each duty to which people of the role are called.
    """
    calls_by_address = {}
    for mail in mails(played.home):
        address = parseaddr(mail["To"])[1]
        english = text_of(mail, "plain").split("=" * 40)[-1]
        calls = [
            line
            for line in english.splitlines()
            if "You are called" in line and f"{played.number} " in line
        ]
        if calls:
            assert address not in calls_by_address  # one mail per address
            calls_by_address[address] = len(calls)
            assert mail["Subject"].startswith("紧急")
            assert played.script.title[1] in text_of(mail, "plain")
    assert calls_by_address == ROLES


def check_notices(played: Played) -> None:
    """Check that each affected person with an e-mail address got one notice with all parts."""
    notices = [mail for mail in mails(played.home) if _is_notice_of(played, mail)]
    assert sorted(parseaddr(notice["To"])[1] for notice in notices) == sorted(
        played.script.notices.values()
    )
    if not notices:
        return
    (plain,) = {text_of(notice, "plain") for notice in notices}  # all notices have the same text
    (page,) = {text_of(notice, "html") for notice in notices}
    for words in (
        *played.script.cause,
        *(IMPACT[f"{part}_{language}"] for part in PARTS for language in ("zh", "en")),
        *("个人信息安全事件告知书", "Notice of a security incident"),
        *("可能涉及您的以下个人信息", "Your information that may be affected"),
        *("privacy@courier.example", "姓名", "phone number"),
    ):
        assert words in plain
        assert words in page
    for notice in notices:
        assert notice["Content-Language"] == "zh-CN, en"
        assert played.number not in notice["Subject"]


def check_corrective_action(played: Played, sample_state: Sample) -> None:
    """Check that the corrective action is recorded as a finding with its owner."""
    query = "SELECT kind, owner, description FROM finding WHERE reference LIKE %(reference)s"
    ((kind, owner, what),) = sample_state.rows(query, {"reference": f"{played.number}/%"})
    assert (kind, owner) == ("incident", "data_engineering")
    assert ACTION in json.dumps(what)


def _is_notice_of(played: Played, mail: EmailMessage) -> bool:
    own = mail["To"].endswith("@courier.example")
    return not own and played.script.cause[0] in text_of(mail, "plain")


def _reasons(played: Played) -> Iterator[str]:
    for move, _page in played.pages:
        for value in move.entered.values():
            if isinstance(value, str) and " " in value:
                yield value


def _text(page: str) -> str:
    """Return the readable text of an HTML page."""
    page = re.sub(r"<(style|script|svg|code|pre)\b.*?</\1>", " ", page, flags=re.DOTALL)
    page = re.sub(r"<[^>]+>", "\n", page)
    return _COMMAND.sub(" ", html.unescape(page))


@cache
def _mails(folder: Path, count: int) -> tuple[EmailMessage, ...]:
    del count
    return tuple(
        cast("EmailMessage", email.message_from_bytes(path.read_bytes(), policy=default))
        for path in sorted(folder.glob("*.eml"))
    )


def mails(home: Path) -> tuple[EmailMessage, ...]:
    """Return all mails that the local mail server received."""
    folder = home / "mail"
    return _mails(folder, len(list(folder.glob("*.eml"))))


def text_of(mail: EmailMessage, kind: str) -> str:
    """Return the body of a mail as text.

    Args:
        mail: the mail.
        kind: ``plain`` or ``html``.
    """
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def moment(text: str) -> datetime:
    """Parse the time of a timeline entry."""
    return datetime.fromisoformat(text)


def entry(played: Played, kind: str) -> Mapping[str, Any]:
    """Return the last timeline entry of a kind."""
    return [item for item in played.timeline if item["kind"] == kind][-1]
