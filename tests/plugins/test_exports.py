"""Exported lists of the pages: content, filter, language, limits, cancelled downloads."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from openpyxl import load_workbook
from pypdf import PdfReader

from tests.plugins.company import NOW, XSS
from tests.plugins.pages_server import PagesServer

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"
LISTS = (
    "/exports/overview",
    "/exports/evidence",
    "/exports/findings",
    "/exports/control",
)
CONTROL = {"/exports/control": "?control=backup.offsite"}


def rows_of(
    pages_server: PagesServer, address: str, language: str = "en"
) -> list[Mapping[str, object]]:
    """Return the rows of an exported Excel file as heading -> value."""
    got = pages_server.get(OFFICER, address, language)
    assert got.status_code == 200, address
    sheet = load_workbook(io.BytesIO(got.content)).worksheets[0]
    first = int(str(sheet.freeze_panes).removeprefix("A"))
    heading, *rows = sheet.iter_rows(first - 1, values_only=True)
    return [dict(zip(map(str, heading), row, strict=True)) for row in rows]


@pytest.mark.pdf
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    ("language", "company"), [("en", "SampleCourierCo."), ("zh-CN", "示例快递有限公司")]
)
def test_pdf_of_each_list_has_letterhead_and_page_number_in_the_language_of_the_reader(
    pages_server: PagesServer, name: str, language: str, company: str
) -> None:
    got = pages_server.get(OFFICER, f"{name}.pdf{CONTROL.get(name, '')}", language)
    assert got.status_code == 200
    assert got.headers["content-type"] == "application/pdf"
    pages = PdfReader(io.BytesIO(got.content)).pages
    texts = [re.sub(r"\s+", "", page.extract_text()) for page in pages]
    for text in texts:
        assert company in text
    number = {"en": f"Page1of{len(pages)}", "zh-CN": f"第1页，共{len(pages)}页"}[language]
    assert number in texts[0]


def test_evidence_export_uses_the_filter_and_the_order_of_the_page(
    pages_server: PagesServer,
) -> None:
    rows = rows_of(pages_server, "/exports/evidence.xlsx?workflow=drill_restore&order=oldest")
    expected = [row for row in pages_server.company.rows() if row.dag_id == "drill_restore"]
    assert [row["Number"] for row in rows] == [row.seq for row in expected]
    failed = rows_of(pages_server, "/exports/evidence.xlsx?outcome=fail&clause=4.2")
    assert {row["Outcome of the run"] for row in failed} == {"Failed"}
    assert len(failed) == 2
    tomorrow = (NOW + timedelta(days=2)).date()
    assert rows_of(pages_server, f"/exports/evidence.xlsx?since={tomorrow}") == []


def test_exported_times_are_real_times_in_the_timezone_of_the_pack(
    pages_server: PagesServer,
) -> None:
    row = rows_of(pages_server, "/exports/evidence.xlsx")[0]
    [newest] = [each for each in pages_server.company.rows() if each.seq == row["Number"]]
    sealed = row["Sealed"]
    assert isinstance(sealed, datetime)
    shanghai = newest.sealed_at.replace(tzinfo=None) + timedelta(hours=8)
    assert abs(sealed - shanghai) < timedelta(minutes=1)


def test_export_with_an_invalid_day_or_format_is_refused(pages_server: PagesServer) -> None:
    """The page ignores such a day, but a file with another period could be misunderstood."""
    for address in (
        "/exports/evidence.xlsx?since=2026-13-40",
        "/exports/control.xlsx?control=backup.offsite&until=x",
        "/exports/control.xlsx",
        "/exports/evidence.docx",
        "/exports/evidence.xlsx?outcome=x",
    ):
        assert pages_server.get(OFFICER, address).status_code == 400, address


def test_hostile_texts_of_findings_stay_texts(pages_server: PagesServer) -> None:
    rows = rows_of(pages_server, "/exports/findings.xlsx")
    assert len(rows) == len(pages_server.company.findings())
    assert rows[0]["Overdue"] == "overdue"
    assert rows[-1]["Overdue"] is None
    assert XSS.replace("\u202e", "\\u202e") in str(rows[0]["Finding"])
    got = pages_server.get(OFFICER, "/exports/findings.xlsx")
    book = load_workbook(io.BytesIO(got.content))
    cells = [cell for sheet in book.worksheets for row in sheet.iter_rows() for cell in row]
    assert not [cell for cell in cells if cell.data_type == "f"]


def test_overview_export_states_clause_control_owner_and_counts(pages_server: PagesServer) -> None:
    rows = rows_of(pages_server, "/exports/overview.xlsx", "zh-CN")
    first = next(row for row in rows if row["控制措施"] == "数据地图所列数据库当日均有加密备份")
    assert first["条款"] == "4.2 客户信息存储"
    assert first["责任人"] == "数据工程团队"
    assert first["当前结果"] == "通过"
    got = pages_server.get(OFFICER, "/exports/overview.xlsx", "zh-CN")
    about = dict(load_workbook(io.BytesIO(got.content)).worksheets[1].iter_rows(values_only=True))
    states = ("通过的控制措施", "需关注的控制措施", "未通过或无有效证据的控制措施")
    assert sum(int(str(about[name])) for name in states) == len(
        [row for row in rows if row["控制措施"]]
    )


def test_download_headers_name_the_file_and_forbid_active_content(
    pages_server: PagesServer,
) -> None:
    got = pages_server.get(OFFICER, "/exports/evidence.xlsx")
    assert re.fullmatch(
        r"attachment; filename\*=UTF-8''evidence-\d{4}-\d\d-\d\d\.xlsx",
        got.headers["content-disposition"],
    )
    assert got.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert got.headers["cache-control"] == "no-store"


def test_history_of_a_control_states_the_result_of_the_control_beside_that_of_the_run(
    pages_server: PagesServer,
) -> None:
    rows = rows_of(pages_server, "/exports/control.xlsx?control=backup.offsite")
    stated = {(row["Result of the control"], row["Outcome of the run"]) for row in rows}
    assert ("passed", "Passed") in stated
    assert ("failed", "Failed") in stated


def test_pages_link_to_the_export_of_their_list(pages_server: PagesServer) -> None:
    page = pages_server.get(OFFICER, "/evidence?clause=4.2&order=oldest").text
    assert 'href="/compliance/exports/evidence.xlsx?clause=4.2&amp;order=oldest"' in page
    assert 'href="/compliance/exports/evidence.pdf?clause=4.2&amp;order=oldest"' in page
    assert 'href="/compliance/exports/findings.xlsx"' in pages_server.get(OFFICER, "/findings").text
    control = pages_server.get(OFFICER, "/controls/backup.offsite").text
    assert 'href="/compliance/exports/control.xlsx?control=backup.offsite"' in control
    overview = pages_server.get(OFFICER, "/").text
    assert 'href="/compliance/exports/overview.pdf"' in overview
    assert 'action="/compliance/exports/control.xlsx"' in overview


def test_download_that_the_client_cancels_leaves_no_file(pages_server: PagesServer) -> None:
    def left_files() -> set[str]:
        folder = Path(pages_server.airflow.environment["TMPDIR"])
        return {
            path.name for path in folder.iterdir() if path.name.startswith(("openpyxl.", "tmp"))
        }

    before = left_files()
    address = urlsplit(pages_server.url)
    session = pages_server.airflow.session(OFFICER)
    headers = "".join(f"{name}: {value}\r\n" for name, value in session.headers.items())
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies)
    for wait in (0.0, 0.1, 0.5):
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(
                f"GET {address.path}/exports/evidence.xlsx HTTP/1.1\r\nHost: {address.netloc}\r\n"
                f"{headers}Cookie: {cookies}\r\n\r\n".encode()
            )
            time.sleep(wait)
            if wait:
                assert connection.recv(15).startswith(b"HTTP/1.1 200")
    assert pages_server.get(OFFICER, "/exports/evidence.xlsx").status_code == 200
    assert left_files() <= before
