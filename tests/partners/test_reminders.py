"""Who is told, once, and not of what is mended meanwhile: repeated, killed, two at a time."""

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

from include.notify.notice import Notice
from include.partners import history, reminders
from include.partners.partner_status import bound_of
from include.reports.i18n import Translator
from tests.partners.rig import Rig

ROOT = Path(__file__).parents[2]


def notices(rig: Rig) -> list[Notice]:
    run = rig.context
    with run.state.connect() as conn:
        known = history.known(conn)
    bound = bound_of(run, known, rig.register().partners)
    return list(reminders.notices(run, reminders.reached(run, bound)))


def lines(found: Sequence[Notice], locale: str = "en") -> list[tuple[str, str]]:
    said = Translator(locale)
    return [(one.recipient, said.text(one.line)) for one in found]


def test_the_owner_and_the_partner_are_told(rig: Rig) -> None:
    """Each in words of its own, in both languages; the number is the owner's alone."""
    rig.ally("1", secrecy_to="2026-06-20")
    found = notices(rig)
    assert lines(found) == [
        ("role:compliance",
         "Company 1 (1): The confidentiality agreement ends on 2026-06-20."),
        ("partner:1",
         "The confidentiality agreement ends on 2026-06-20: please renew it with us."),
    ]  # fmt: skip
    assert "保密协议将于 2026-06-20 到期" in lines(found, "zh_CN")[0][1]
    assert [one.key for one in found] == ["1/nda/2026-06-20/-30"] * 2
    assert found[1].address == "privacy@1.example"


def test_what_lapsed_says_that_nothing_may_be_shared(rig: Rig) -> None:
    """To both of them; of an incident a partner hears from people."""
    rig.ally("1", deal_to="2026-05-30", seen_on=None)
    rig.ally("2")
    rig.reopen("2")
    said = lines(notices(rig))
    assert said[0] == (
        "role:compliance",
        "Company 1 (1): The data-processing agreement ended on 2026-05-30. "
        "Nothing may be shared until that is mended.",
    )
    assert said[1][1].endswith("We share nothing with you until that is mended.")
    assert [who for who, line in said if "opened again" in line] == ["role:compliance"]


def test_a_role_with_several_addresses_and_a_robot_is_told_at_each(rig: Rig) -> None:
    """A role with a robot alone too; one with neither is reported as not to be reached."""
    rig.ally("1", secrecy_to="2026-06-20")
    role = rig.pack.roles["compliance"]

    def told(**more: object) -> list[tuple[str, str, str]]:
        changed = role.model_copy(update=more)
        rig.pack = rig.pack.model_copy(update={"roles": {"compliance": changed}})
        return [(one.channel, one.address, one.key) for one in notices(rig)[:-1]]

    key = "1/nda/2026-06-20/-30"
    assert told(mail=("a@x.example", "b@x.example"), robot="chat") == [
        ("mail", "a@x.example", key),
        ("mail", "b@x.example", f"{key}#1"),
        ("robot", "chat", f"{key}#robot"),
    ]
    assert told(mail=(), robot="chat") == [("robot", "chat", f"{key}#robot")]
    assert told(mail=(), robot=None) == [("mail", "", key)]


@pytest.mark.parametrize("contact", [None, "", "not an address", "a@b@c", "x@y.example\r\nBcc: z"])
def test_an_address_that_cannot_be_used_is_reported_and_mended(
    rig: Rig, contact: str | None
) -> None:
    """The owner is told all the same; with another address the partner is, too."""
    rig.ally("1", secrecy_to="2026-06-20", contact=contact)
    rig.check()

    def states() -> list[tuple[str, str]]:
        with rig.state.connect() as conn:
            found = conn.execute(text("SELECT recipient, state FROM notice ORDER BY id"))
            return [(row.recipient, row.state) for row in found]

    assert states() == [("role:compliance", "pending"), ("partner:1", "undeliverable")]
    rig.change("1", contact="privacy@1.example")
    rig.check()
    assert states() == [("role:compliance", "pending"), ("partner:1", "pending")]


def test_a_repeated_run_tells_nothing_and_says_the_same(rig: Rig) -> None:
    """A task that is tried again, and a run of the same day by hand."""
    rig.ally("1", secrecy_to="2026-06-20")
    rig.ally("2", seen_on="2025-01-01")
    first = rig.check("r1")
    assert rig.check("r1") == first
    assert len(rig.keys()) == 2
    rig.check("by hand")
    assert (len(rig.keys()), rig.keys(run="by hand")) == (2, [])


def test_a_term_that_was_renewed_begins_a_new_ladder(rig: Rig) -> None:
    """Its new day makes other keys."""
    rig.ally("1", secrecy_to="2026-06-20")
    rig.check("r1")
    rig.change("1", secrecy_to="2026-08-20")
    rig.check("r2")
    assert rig.keys() == ["1/nda/2026-06-20/-30", "1/nda/2026-08-20/-90"]


def test_an_unknown_day_is_asked_for_again_each_week(rig: Rig) -> None:
    """As what lapsed is: neither is ever silent."""
    rig.ally("1", deal_to=None, seen_on="2025-05-01")
    for week in range(4):
        rig.check(f"w{week}")
        assert len(rig.keys(run=f"w{week}")) == 2
        rig.check(f"w{week} again")
        assert rig.keys(run=f"w{week} again") == []
        rig.today += timedelta(days=7)


def still(rig: Rig, keys: Sequence[str]) -> set[str]:
    return reminders.still_due(rig.context, keys)


def test_what_was_mended_meanwhile_is_not_sent(rig: Rig) -> None:
    """Renewed, reviewed, without access, gone: checked at again just before it is sent."""
    for code in "1234":
        rig.ally(code, secrecy_to="2026-06-20")
    rig.ally("5", seen_on="2025-01-01")
    rig.check()
    keys = rig.keys()
    assert still(rig, keys) == set(keys)
    rig.change("1", secrecy_to="2027-06-20")
    rig.change("2", connected=False)
    rig.sql("DELETE FROM ally WHERE code = '3'")
    rig.review("5")
    assert still(rig, keys) == {"4/nda/2026-06-20/-30"}


def test_a_reminder_that_waited_too_long_is_not_sent(rig: Rig) -> None:
    """That it ends is wrong after the end, and a later rung says it better."""
    rig.ally("1", secrecy_to="2026-06-20")
    rig.check("r1")
    rig.today += timedelta(days=7)
    rig.check("r2")
    assert rig.keys() == ["1/nda/2026-06-20/-30", "1/nda/2026-06-20/-7"]
    assert still(rig, rig.keys()) == {"1/nda/2026-06-20/-7"}
    assert still(rig, rig.keys()[:1]) == {"1/nda/2026-06-20/-30"}  # the other one was sent
    rig.today += timedelta(days=14)
    assert still(rig, rig.keys()) == set()
    rig.check("r3")
    assert still(rig, rig.keys()) == {"1/nda/2026-06-20/1"}


def test_each_address_of_a_role_is_confirmed(rig: Rig) -> None:
    """The same rung at several addresses is one rung."""
    rig.ally("1", secrecy_to="2026-06-20")
    key = "1/nda/2026-06-20/-30"
    assert still(rig, [key, f"{key}#1", f"{key}#robot"]) == {key, f"{key}#1", f"{key}#robot"}


def test_two_runs_at_once_tell_each_rung_once(rig: Rig) -> None:
    """Two schedulers, or a run by hand beside the scheduled one."""
    for code in range(20):
        rig.ally(str(code), secrecy_to="2026-06-20", seen_on="2025-01-01")
    twins = [replace(rig, run=replace(rig.run, run_id=name)) for name in ("a", "b")]
    start = threading.Barrier(2)
    failed: list[BaseException] = []

    def work(one: Rig) -> None:
        try:
            start.wait(10)
            one.check()
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in twins]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert failed == []
    assert len(rig.keys()) == len(set(rig.keys())) == 40


CHILD = """
import os, sys
from include.partners import check
from tests.partners.rig import Rig, pack_at
from pathlib import Path
from include.state.connect import engine
rig = Rig(pack_at(Path(sys.argv[1])), sys.argv[2], engine(sys.argv[3]))
if sys.argv[4] == "before":
    check.record_step = lambda *_: os._exit(9)  # queued, and killed before the commit
rig.check()
os._exit(9)  # committed, and killed before anybody is sent anything
"""


@pytest.mark.fault
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_is_repeated_and_tells_once(
    rig: Rig, when: str, tmp_path: Path
) -> None:
    """Killed before what it queued is kept: nothing is. Killed afterwards: nothing is twice."""
    rig.ally("1", secrecy_to="2026-06-20")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), rig.conninfo, rig.state_conninfo, when],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    assert len(rig.keys()) == (1 if when == "after" else 0)
    record = rig.check()
    assert rig.keys() == ["1/nda/2026-06-20/-30"]
    assert {one.name: one.value for one in record.metrics}["partners.reminders"] == 2
