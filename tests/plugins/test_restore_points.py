"""The page of restore points: what it looked at, and what only a drill can have seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import requests
from starlette.requests import Request

from include.backup.manifest import RestorePoint
from include.backup.point_folder import HiddenObject, ObjectRecord
from include.backup.proved import LOOKED_AT, Drilled, Proof, State
from include.evidence.ledger import LedgerRow, Watched
from include.messages import verbatim
from include.orchestration.access.permissions import Page
from tests.backup.support import mapped
from tests.plugins.company import manifest_of, point_of
from tests.plugins.shown import Shown
from tests.plugins.test_pages import Seen
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"
NOW = datetime(2026, 11, 27, 4, tzinfo=UTC)
ROW = LedgerRow(7, "b", "drill_restore", "r", "pass", [], NOW, NOW, "", "", "")
HELD, FAILED = Drilled(ROW, "p1", True, NOW), Drilled(ROW, "p1", False, NOW)


def test_restore_points_are_those_of_the_store(shown: Shown) -> None:
    """Two that can be used, and one that must not be."""
    page = Seen(shown.get(OFFICER, "/restore-points").text).text
    assert page.count("at the longest") == 2
    assert "must not be used" in page


@pytest.mark.parametrize(
    ("language", "loud", "looked"),
    [
        ("en", "The newest restore drill of this database failed.", "did not look at the content"),
        ("zh-CN", "该数据库最近一次恢复演练未通过。", "未检查任何备份文件的内容"),
    ],
)
def test_a_drill_that_failed_is_loud_on_the_page(
    shown: Shown, language: str, loud: str, looked: str
) -> None:
    """Though every manifest and size is right; both drills are linked, each to its own bundle."""
    got = shown.get(OFFICER, "/restore-points", language).text
    assert loud in got
    assert 'role="alert"' in got
    assert looked in got
    failed = shown.company.newest("drill_restore")
    assert f'href="/compliance/evidence/{failed.seq}"' in got
    table = got[got.index("<tbody>") : got.index("</tbody>")].split("<tr>")[1:]
    marks = {point_of(0): "fail", point_of(1): "pass"}
    for point, mark in marks.items():
        (line,) = [one for one in table if point in one]
        assert f'class="icon {mark}"' in line


def test_a_drill_that_failed_is_not_hidden_by_moving_its_line_of_the_ledger(shown: Shown) -> None:
    """To another workflow: the one before it held, and the page says what was done."""
    failed = shown.company.newest("drill_restore")
    change = "UPDATE evidence_ledger SET dag_id = %s WHERE seq = %s"
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        state.execute("ALTER TABLE evidence_ledger DISABLE TRIGGER USER")
        try:
            state.execute(change, ["check_quality", failed.seq])
            page = Seen(shown.get(OFFICER, "/restore-points").text).text
            assert "1 lines of the ledger were changed after they were signed" in page
            assert "Yes, by the drill that ended" in page
        finally:
            state.execute(change, [failed.dag_id, failed.seq])
            state.execute("ALTER TABLE evidence_ledger ENABLE TRIGGER USER")


@contextmanager
def reader(shown: Shown, name: str, *resources: str) -> Iterator[requests.Session]:
    """Somebody with a role of their own, for a while."""
    admin, fab = shown.airflow.session(ADMIN), f"{shown.airflow.url}/auth/fab/v1"
    actions = [{"action": {"name": "can_read"}, "resource": {"name": one}} for one in resources]
    person = {
        "username": name, "email": f"{name}@courier.example", "first_name": name,
        "last_name": name, "password": "only for tests", "roles": [{"name": name}],
    }  # fmt: skip
    try:
        for kind, body in (("roles", {"name": name, "actions": actions}), ("users", person)):
            made = admin.post(f"{fab}/{kind}", json=body, timeout=120)
            assert made.ok, made.text
        told = {"username": name, "password": "only for tests"}
        token = requests.post(f"{shown.airflow.url}/auth/token", json=told, timeout=120)
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        session.headers["Accept-Language"] = "en"
        yield session
    finally:
        for kind in ("users", "roles"):
            admin.delete(f"{fab}/{kind}/{name}", timeout=120)


def test_who_may_not_read_drills_is_told_their_outcome_and_gets_no_bundle(shown: Shown) -> None:
    """A restore point that failed is not good because of who looks at it."""
    pages = (Page.RESTORE_POINTS, Page.EVIDENCE)
    with reader(shown, "storekeeper", *pages, "DAG:backup_offsite") as session:
        got = session.get(f"{shown.url}/restore-points", timeout=120)
        assert got.status_code == 200
        assert "The newest restore drill of this database failed." in got.text
        assert point_of(0) in got.text
        assert "/compliance/evidence/" not in got.text
        seq = shown.company.newest("drill_restore").seq
        assert session.get(f"{shown.url}/evidence/{seq}", timeout=120).status_code == 404


def rendered(
    proof: Proof,
    language: str,
    locking: bool = False,
    until: datetime | None = None,
    changed: int = 0,
    hidden: tuple[HiddenObject, ...] = (),
) -> Seen:
    """The page of one restore point, as the template makes it."""
    from plugins.compliance_ui.rendering import render
    from plugins.compliance_ui.restore_points import Points, outcome_of
    from plugins.compliance_ui.services import LedgerState

    dump = ObjectRecord(key="k", size=1, sha256="ab" * 32, checksum="")
    point = RestorePoint(manifest_of("courier", "p1", NOW, dump), until, hidden=hidden)
    points = Points(mapped(), [point], [], NOW, locking)
    ledger = LedgerState(0, Watched(9, 9, changed, (3,)))
    asked = Request(
        {
            "type": "http",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "headers": [(b"accept-language", language.encode())],
        }
    )
    made = render(
        asked, "restore_points.html.j2", page=Page.RESTORE_POINTS, title=verbatim("x"), now=NOW,
        databases=[points], drilled={"courier": proof}, drills=LOOKED_AT, opens_drills=True,
        outcomes={"courier": outcome_of(points, proof, ledger)}, ledger=ledger,
        held={"courier": set()}, most=9, read_at=NOW, expires=timedelta(days=90),
    )  # fmt: skip
    return Seen(bytes(made.body).decode())


@pytest.mark.parametrize(
    ("proof", "outcome", "english", "chinese"),
    [
        (Proof(State.HELD, HELD, None, {"p1": HELD}), "Pass", "Yes, by the drill that ended", "是"),
        (Proof(State.LATE, HELD, None, {"p1": HELD}), "Attention", "No longer", "已失效"),
        (
            Proof(State.FAILED, FAILED, None, {"p1": FAILED}),
            "Fail",
            "No: the newest drill, which ended",
            "否",
        ),
        (
            Proof(State.UNCHECKED, HELD, None, {"p1": HELD}),
            "Attention",
            "too large to be checked while you wait",
            "无法即时核验",
        ),
        (Proof(State.NEVER), "Attention", "none of the newest 20 drills looked", "均未涉及"),
        (Proof(State.UNREAD), "Attention", "the evidence store does not answer", "没有响应"),
        (
            Proof(State.REFUSED, HELD, (ROW, verbatim("torn"))),
            "Fail",
            "cannot be believed: torn.",
            "无法采信：torn",
        ),
    ],
    ids=lambda one: one.state if isinstance(one, Proof) else "",
)
def test_each_state_of_the_proof_is_said_in_both_languages(
    proof: Proof, outcome: str, english: str, chinese: str
) -> None:
    """And the outcome of the database is the worse of its points and of what is proved."""
    page = rendered(proof, "en")
    assert f"Courier {outcome}" in page.text
    assert english in page.text
    assert chinese in rendered(proof, "zh-CN").text
    links = [one["href"] for tag, one in page.tags if tag == "a" and "/evidence/7" in str(one)]
    assert len(links) == (proof.state not in (State.NEVER, State.UNREAD))


def test_nothing_is_proved_by_a_ledger_that_was_changed() -> None:
    """The line of a drill that failed may be the one."""
    proof = Proof(State.HELD, HELD, None, {"p1": HELD})
    assert "Courier Pass" in rendered(proof, "en").text
    assert "Courier Fail" in rendered(proof, "en", changed=1).text


def test_a_restore_point_that_was_pruned_is_said_to_be_gone() -> None:
    """What a drill proved of it proves nothing of those that are left."""
    gone = Drilled(ROW, "p0", True, NOW)
    assert "not in the store any more" in rendered(Proof(State.HELD, gone), "en").text
    assert "not in the store any more" not in rendered(Proof(State.HELD, HELD), "en").text


@pytest.mark.parametrize(
    ("locking", "days", "said"),
    [
        (True, 1, "locked until"),
        (False, 1, "nothing locks it"),
        (True, -1, "at the longest"),
        (False, -1, "at the longest"),
    ],
)
def test_only_a_store_that_locks_by_itself_is_said_to_lock(
    locking: bool, days: int, said: str
) -> None:
    """In a directory a lock is a wish of ours; one that has ended is none anywhere."""
    found = rendered(Proof(State.NEVER), "en", locking, NOW + timedelta(days=days)).text
    assert said in found
    assert ("locked until" in found) is (said == "locked until")
    assert ("is a directory: nothing in it is locked" in found) is not locking


@pytest.mark.parametrize(
    ("is_deleted", "english", "chinese"),
    [(True, "was deleted in the store", "已被删除"), (False, "was overwritten", "已被覆盖")],
)
def test_a_hidden_object_fails_its_database(is_deleted: bool, english: str, chinese: str) -> None:
    """The restore point can be used; that somebody changed the store is loud all the same."""
    proof = Proof(State.HELD, HELD, None, {"p1": HELD})
    hidden = (HiddenObject("courier/p1/manifest.json", is_deleted),)
    page = rendered(proof, "en", hidden=hidden)
    assert "Courier Fail" in page.text
    assert f"courier/p1/manifest.json : The object {english}" in page.text.replace(
        "manifest.json:", "manifest.json :"
    )
    assert chinese in rendered(proof, "zh-CN", hidden=hidden).text
