"""The page of restore points, and the results of restore drills on this page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import requests
from starlette.requests import Request

from include.backup.drill_proofs import MAX_BUNDLES, DatabaseDrill, Proof, State
from include.backup.manifest import RestorePoint
from include.backup.point_folder import HiddenObject, ObjectRecord
from include.evidence.ledger import LedgerRow, RowCheckState
from include.messages import verbatim
from include.orchestration.access.permissions import Page
from tests.backup.support import mapped
from tests.plugins.company import manifest_of, point_of
from tests.plugins.pages_server import PagesServer
from tests.plugins.test_pages import ParsedPage
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"
NOW = datetime(2026, 11, 27, 4, tzinfo=UTC)
ROW = LedgerRow(7, "b", "drill_restore", "r", "pass", [], NOW, NOW, "", "", "")
PASSED, FAILED = DatabaseDrill(ROW, "p1", True, NOW), DatabaseDrill(ROW, "p1", False, NOW)


def test_restore_points_page_shows_valid_and_rejected_restore_points(
    pages_server: PagesServer,
) -> None:
    page = ParsedPage(pages_server.get(OFFICER, "/restore-points").text).text
    assert page.count("at the latest") == 2
    assert "must not be used" in page


@pytest.mark.parametrize(
    ("language", "loud", "looked"),
    [
        ("en", "The newest restore drill of this database failed.", "did not check the content"),
        ("zh-CN", "该数据库最近一次恢复演练未通过。", "未检查任何备份文件的内容"),
    ],
)
def test_database_is_shown_as_failed_if_its_newest_restore_drill_failed(
    pages_server: PagesServer, language: str, loud: str, looked: str
) -> None:
    """The database is shown as failed although every manifest and every file size is correct."""
    got = pages_server.get(OFFICER, "/restore-points", language).text
    assert loud in got
    assert 'role="alert"' in got
    assert looked in got
    failed = pages_server.company.newest("drill_restore")
    assert f'href="/compliance/evidence/{failed.seq}"' in got
    table = got[got.index("<tbody>") : got.index("</tbody>")].split("<tr>")[1:]
    marks = {point_of(0): "fail", point_of(1): "pass"}
    for point, mark in marks.items():
        (line,) = [table_line for table_line in table if point in table_line]
        assert f'class="icon {mark}"' in line


def test_page_shows_a_warning_if_the_ledger_row_of_a_failed_restore_drill_was_changed(
    pages_server: PagesServer,
) -> None:
    failed = pages_server.company.newest("drill_restore")
    change = "UPDATE evidence_ledger SET dag_id = %s WHERE seq = %s"
    with psycopg.connect(pages_server.company.conninfo, autocommit=True) as state:
        state.execute("ALTER TABLE evidence_ledger DISABLE TRIGGER USER")
        try:
            state.execute(change, ["check_quality", failed.seq])
            page = ParsedPage(pages_server.get(OFFICER, "/restore-points").text).text
            assert "1 rows of the evidence ledger were changed after they were signed" in page
            assert "Yes, it was tested by the restore drill that ended at" in page
        finally:
            state.execute(change, [failed.dag_id, failed.seq])
            state.execute("ALTER TABLE evidence_ledger ENABLE TRIGGER USER")


@contextmanager
def reader(pages_server: PagesServer, name: str, *resources: str) -> Iterator[requests.Session]:
    """Create a user with a new role for the ``with`` block, and yield the user's HTTP session.

    Args:
        pages_server: API server of the test.
        name: name of the user and of the role.
        resources: resources that the role may read.
    """
    admin, fab = pages_server.airflow.session(ADMIN), f"{pages_server.airflow.url}/auth/fab/v1"
    actions = [
        {"action": {"name": "can_read"}, "resource": {"name": resource}} for resource in resources
    ]
    person = {
        "username": name, "email": f"{name}@courier.example", "first_name": name,
        "last_name": name, "password": "only for tests", "roles": [{"name": name}],
    }  # fmt: skip
    try:
        for kind, body in (("roles", {"name": name, "actions": actions}), ("users", person)):
            response = admin.post(f"{fab}/{kind}", json=body, timeout=120)
            assert response.ok, response.text
        login = {"username": name, "password": "only for tests"}
        token = requests.post(f"{pages_server.airflow.url}/auth/token", json=login, timeout=120)
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        session.headers["Accept-Language"] = "en"
        yield session
    finally:
        for kind in ("users", "roles"):
            admin.delete(f"{fab}/{kind}/{name}", timeout=120)


def test_outcome_of_restore_drill_is_shown_to_user_who_may_not_read_its_evidence_bundle(
    pages_server: PagesServer,
) -> None:
    pages = (Page.RESTORE_POINTS, Page.EVIDENCE)
    with reader(pages_server, "storekeeper", *pages, "DAG:backup_offsite") as session:
        got = session.get(f"{pages_server.url}/restore-points", timeout=120)
        assert got.status_code == 200
        assert "The newest restore drill of this database failed." in got.text
        assert point_of(0) in got.text
        assert "/compliance/evidence/" not in got.text
        seq = pages_server.company.newest("drill_restore").seq
        assert session.get(f"{pages_server.url}/evidence/{seq}", timeout=120).status_code == 404


def rendered(
    proof: Proof,
    language: str,
    enforces_locks: bool = False,
    until: datetime | None = None,
    changed: int = 0,
    hidden: tuple[HiddenObject, ...] = (),
) -> ParsedPage:
    """Render the page of restore points for a database with one restore point.

    Args:
        proof: evidence from the restore drills of the database.
        language: language of the page.
        enforces_locks: whether the off-site store itself prevents changes of locked files.
        until: end of the lock of the restore point; None for no lock.
        changed: number of changed rows of the evidence ledger.
        hidden: files that were deleted or overwritten in a versioned store.
    """
    from plugins.compliance_ui.page_services import LedgerState
    from plugins.compliance_ui.rendering import render_page
    from plugins.compliance_ui.restore_points import DatabasePoints, outcome_of

    dump = ObjectRecord(key="k", size=1, sha256="ab" * 32, checksum="")
    point = RestorePoint(manifest_of("courier", "p1", NOW, dump), until, hidden=hidden)
    points = DatabasePoints(mapped(), [point], [], NOW, enforces_locks)
    ledger = LedgerState(0, RowCheckState(9, 9, changed, (3,)))
    request = Request(
        {
            "type": "http",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "headers": [(b"accept-language", language.encode())],
        }
    )
    response = render_page(
        request, "restore_points.html.j2", page=Page.RESTORE_POINTS, title=verbatim("x"), now=NOW,
        databases=[points], drilled={"courier": proof}, drills=MAX_BUNDLES, opens_drills=True,
        outcomes={"courier": outcome_of(points, proof, ledger)}, ledger=ledger,
        held={"courier": set()}, most=9, read_at=NOW, expires=timedelta(days=90),
    )  # fmt: skip
    return ParsedPage(bytes(response.body).decode())


@pytest.mark.parametrize(
    ("proof", "outcome", "english", "chinese"),
    [
        (
            Proof(State.PASSED, PASSED, None, {"p1": PASSED}),
            "Passed",
            "Yes, it was tested by the restore drill that ended at",
            "是",
        ),
        (Proof(State.LATE, PASSED, None, {"p1": PASSED}), "Needs attention", "No longer", "已失效"),
        (
            Proof(State.FAILED, FAILED, None, {"p1": FAILED}),
            "Failed",
            "No: the newest drill, which ended",
            "否",
        ),
        (
            Proof(State.UNCHECKED, PASSED, None, {"p1": PASSED}),
            "Needs attention",
            "too large to be verified while you wait",
            "无法即时核验",
        ),
        (
            Proof(State.NEVER),
            "Needs attention",
            "none of the newest 20 drills included",
            "均未涉及",
        ),
        (Proof(State.UNREAD), "Needs attention", "the evidence store does not respond", "没有响应"),
        (
            Proof(State.REFUSED, PASSED, (ROW, verbatim("torn"))),
            "Failed",
            "cannot be trusted: torn.",
            "无法采信：torn",
        ),
    ],
    ids=lambda attributes: attributes.state if isinstance(attributes, Proof) else "",
)
def test_each_result_of_a_restore_drill_is_shown_in_both_languages(
    proof: Proof, outcome: str, english: str, chinese: str
) -> None:
    page = rendered(proof, "en")
    assert f"Courier {outcome}" in page.text
    assert english in page.text
    assert chinese in rendered(proof, "zh-CN").text
    links = [
        attributes["href"]
        for tag, attributes in page.tags
        if tag == "a" and "/evidence/7" in str(attributes)
    ]
    assert len(links) == (proof.state not in (State.NEVER, State.UNREAD))


def test_database_is_shown_as_failed_despite_passed_restore_drill_if_a_ledger_row_was_changed() -> (
    None
):
    """The changed ledger row may have been the row of a failed drill."""
    proof = Proof(State.PASSED, PASSED, None, {"p1": PASSED})
    assert "Courier Passed" in rendered(proof, "en").text
    assert "Courier Failed" in rendered(proof, "en", changed=1).text


def test_page_shows_a_note_if_the_restore_point_of_the_newest_drill_no_longer_exists() -> None:
    message = DatabaseDrill(ROW, "p0", True, NOW)
    assert "not in the store any more" in rendered(Proof(State.PASSED, message), "en").text
    assert "not in the store any more" not in rendered(Proof(State.PASSED, PASSED), "en").text


@pytest.mark.parametrize(
    ("enforces_locks", "days", "expected_text"),
    [
        (True, 1, "locked until"),
        (False, 1, "the off-site store does not lock the backup"),
        (True, -1, "at the latest"),
        (False, -1, "at the latest"),
    ],
)
def test_page_shows_date_until_which_restore_point_is_locked_only_if_store_enforces_locks(
    enforces_locks: bool, days: int, expected_text: str
) -> None:
    text = rendered(Proof(State.NEVER), "en", enforces_locks, NOW + timedelta(days=days)).text
    assert expected_text in text
    assert ("locked until" in text) is (expected_text == "locked until")
    assert ("is a directory without locks" in text) is not enforces_locks


@pytest.mark.parametrize(
    ("is_deleted", "english", "chinese"),
    [
        (True, "was deleted in the off-site store", "被删除"),
        (False, "was overwritten", "被覆盖"),
    ],
)
def test_database_is_shown_as_failed_if_a_restore_point_file_was_deleted_or_overwritten(
    is_deleted: bool, english: str, chinese: str
) -> None:
    """A versioned store keeps the earlier version, so the restore point itself is still usable."""
    proof = Proof(State.PASSED, PASSED, None, {"p1": PASSED})
    hidden = (HiddenObject("courier/p1/manifest.json", is_deleted),)
    page = rendered(proof, "en", hidden=hidden)
    assert "Courier Failed" in page.text
    assert f"courier/p1/manifest.json : A backup file {english}" in page.text.replace(
        "manifest.json:", "manifest.json :"
    )
    assert chinese in rendered(proof, "zh-CN", hidden=hidden).text
