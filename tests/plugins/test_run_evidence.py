"""The page that leads from a run in Airflow to the evidence bundle of the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import plugins.compliance_ui
from include.evidence.bundle import seal
from include.evidence.model import Outcome, Result, RunContext
from include.incident import register
from include.orchestration.addresses import PAGES, run_path
from include.services.clock import FixedClock
from tests.plugins.company import NOW
from tests.plugins.pages_server import PagesServer
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def refused(pages_server: PagesServer) -> int:
    """The number of the bundle of a run whose inputs were wrong."""
    company = pages_server.company
    run = RunContext(
        dag_id="remind_training", run_id="manual__refused", started_at=NOW, code_version="1",
        policy_hash="0" * 64, policy_name="test", clock_source="test",
    )  # fmt: skip
    result = Result(
        run=run, controls=[], outcome=Outcome.FAIL, finished_at=NOW, metrics=[], findings=[],
        could_not_run=True,
    )  # fmt: skip
    with company.state.connect() as conn:
        seal(company.evidence, conn, company.signer, result=result, clock=FixedClock(NOW), files={})
    return company.newest("remind_training").seq


def path_of(dag_id: str, run_id: str) -> str:
    return run_path(dag_id, run_id).removeprefix(PAGES)


def test_page_of_a_run_redirects_to_its_bundle_and_keeps_the_language(
    pages_server: PagesServer,
) -> None:
    row = pages_server.company.newest("backup_offsite")
    got = pages_server.get(ADMIN, path_of(row.dag_id, row.run_id) + "?lang=zh-CN")
    assert got.status_code == 303
    assert got.headers["location"] == f"{PAGES}/evidence/{row.seq}?lang=zh-CN"


@pytest.mark.parametrize(
    ("language", "words"), [("en", "has not sealed its evidence bundle yet"), ("zh", "尚未封存")]
)
def test_page_of_an_unsealed_run_lists_its_interim_bundles(
    pages_server: PagesServer, language: str, words: str
) -> None:
    company = pages_server.company
    interim = company.newest("respond_to_incident.report-1a2b")
    got = pages_server.get(ADMIN, path_of("respond_to_incident", interim.run_id), language)
    if any(row.run_id == interim.run_id for row in company.rows() if row.seq != interim.seq):
        pytest.fail("the run of the interim bundle must not be sealed")
    assert got.status_code == 200
    assert words in got.text
    assert f'href="{PAGES}/evidence/{interim.seq}"' in got.text
    assert "<script>alert" not in got.text


def test_page_of_a_run_returns_404_for_a_dag_that_is_no_workflow(pages_server: PagesServer) -> None:
    row = pages_server.company.newest("a_workflow_of_yesterday")
    assert pages_server.get(ADMIN, path_of(row.dag_id, row.run_id)).status_code == 404


@pytest.mark.parametrize(("language", "words"), [("en", "Could not run"), ("zh", "未能运行")])
def test_pages_state_that_a_run_could_not_run_instead_of_its_outcome(
    pages_server: PagesServer, refused: int, language: str, words: str
) -> None:
    for path in (f"/evidence/{refused}", "/evidence?workflow=remind_training"):
        got = pages_server.get(ADMIN, path, language)
        assert f"</svg> {words}</span>" in got.text, path


@pytest.fixture(scope="module")
def document(pages_server: PagesServer) -> int:
    """The number of the bundle with the first report of the open incident."""
    company = pages_server.company
    with company.state.connect() as conn:
        (incident,) = register.list_incidents(conn)
        run = RunContext(
            dag_id="respond_to_incident.first-cac-1a2b3c4d", run_id=incident.run.run_id,
            started_at=NOW, code_version="1", policy_hash="0" * 64, policy_name="test",
            clock_source="test",
        )  # fmt: skip
        result = Result(
            run=run, controls=[], outcome=Outcome.PASS, finished_at=NOW, metrics=[], findings=[]
        )
        files = {
            "first-cac.zh-CN.docx": b"docx",
            "first-cac.en.pdf": b"pdf",
            "report.en.html": b"x",
        }
        seal(
            company.evidence,
            conn,
            company.signer,
            result=result,
            clock=FixedClock(NOW),
            files=files,
        )
    return company.newest(run.dag_id).seq


@pytest.mark.parametrize(("language", "title"), [("en", "First report"), ("zh", "首次报告")])
def test_page_of_incident_deadlines_offers_the_documents_to_hand_in_for_download(
    pages_server: PagesServer, document: int, language: str, title: str
) -> None:
    page = pages_server.get(ADMIN, "/clocks", language).text
    assert f'<a href="/compliance/evidence/{document}">{title}</a>' in page
    address = f"/evidence/{document}/files/first-cac.zh-CN.docx?download=true"
    assert f'href="/compliance{address}"' in page
    assert "files/report.en.html" not in page
    got = pages_server.get(ADMIN, address)
    assert (got.status_code, got.content) == (200, b"docx")
    assert "attachment" in got.headers["content-disposition"]


def test_links_to_the_compliance_pages_begin_with_the_path_of_the_plugin() -> None:
    assert PAGES == plugins.compliance_ui.PREFIX


def test_evidence_link_of_a_task_leads_to_its_run_and_other_dags_have_none() -> None:
    from plugins.compliance_plugin import EvidenceLink

    def link(dag_id: str) -> str:
        key: Any = SimpleNamespace(dag_id=dag_id, run_id="manual__2026-12-01T00:00:00+00:00")
        return EvidenceLink().get_link(None, ti_key=key)

    assert link("backup_offsite") == (
        "/compliance/runs/backup_offsite/manual__2026-12-01T00%3A00%3A00%2B00%3A00"
    )
    assert link("a_workflow_of_yesterday") == ""


def test_airflow_api_returns_the_evidence_link_of_a_task_instance(
    pages_server: PagesServer,
) -> None:
    airflow = pages_server.airflow
    session = airflow.session(ADMIN)
    run_id = "manual__evidence+link"
    runs = f"{airflow.url}/api/v2/dags/backup_offsite/dagRuns"
    session.post(
        runs, json={"dag_run_id": run_id, "logical_date": None, "conf": {}}, timeout=120
    ).raise_for_status()
    got = session.get(f"{runs}/manual__evidence%2Blink/taskInstances/gate/links", timeout=120)
    assert got.json()["extra_links"] == {"Evidence": run_path("backup_offsite", run_id)}
    assert pages_server.get(ADMIN, path_of("backup_offsite", run_id)).status_code == 200
    plugins = session.get(f"{airflow.url}/api/v2/plugins", timeout=120).json()["plugins"]
    views = [view for plugin in plugins for view in plugin["external_views"]]
    (view,) = [view for view in views if view["destination"] == "dag_run"]
    assert (view["name"], view["href"]) == ("Evidence", "/compliance/runs/{DAG_ID}/{RUN_ID}")
