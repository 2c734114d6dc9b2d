"""Letterhead, report number, page numbers, owners, signature lines, and charts with a legend."""

from __future__ import annotations

import io
import re
from datetime import UTC, date, datetime

import pytest
from pypdf import PdfReader

from include.evidence.model import ControlStatus, Outcome
from include.evidence.report_number import report_number
from include.messages import _
from include.policy import SHIPPED
from include.policy.company import Company, PolicyTitle
from include.registry import load_pack
from include.reports.html import render_html
from include.reports.i18n import Translator
from include.reports.letterhead import letterhead_of
from include.reports.model import (
    Bar,
    BarChart,
    Report,
    Section,
    SignatureLine,
    TrendChart,
    TrendPoint,
    signature_section,
)
from include.reports.render import render_pdf
from tests.reports import sample

PACK = load_pack(SHIPPED)
NAMES = {"en": "Sample Courier Co.", "zh_CN": "示例快递有限公司"}
POLICIES = {
    "en": "Internal control system for customer-information protection, 2026 edition, "
    "in force from 2026-01-01",
    "zh_CN": "《快递行业客户信息保护内部控制制度》（2026年版，自2026年1月1日起施行）",
}


def official() -> Report:
    """Return a failed report with letterhead, number, owner and a line for a signature."""
    owner = PACK.roles["data_engineering"].message
    controls = [
        ControlStatus.model_validate(control.model_dump() | {"owner": owner})
        for control in sample.failed().controls
    ]
    signatures = signature_section(
        SignatureLine(role=_("Performed by"), name="陈晓", day=date(2026, 11, 24)),
        SignatureLine(role=_("Reviewed by")),
    )
    return sample.failed().model_copy(
        update={
            "number": report_number(sample.RUN),
            "letterhead": letterhead_of(PACK.company),
            "controls": controls,
            "sections": [signatures],
        }
    )


@pytest.mark.parametrize("locale", ["en", "zh_CN"])
def test_report_shows_company_address_policy_and_number_in_the_language_of_the_reader(
    locale: str,
) -> None:
    html = render_html(official(), locale)
    head = html.partition("<header")[2].partition("</header>")[0]
    assert NAMES[locale] in head
    assert POLICIES[locale] in head
    assert report_number(sample.RUN) in head
    assert {"en": "Kunming", "zh_CN": "昆明市"}[locale] in head
    assert {"en": "Data engineering", "zh_CN": "数据工程团队"}[locale] in html


def test_report_of_a_pack_without_a_company_has_no_letterhead() -> None:
    """The sample company must not appear in the reports of another company."""
    html = render_html(sample.failed(), "en")
    assert 'class="letterhead"' not in html
    assert "Sample Courier" not in html


def test_letterhead_escapes_markup_of_the_policy_pack() -> None:
    hostile = {"en": "<script>alert(1)</script>", "zh-CN": "<img src=x>"}
    company = Company(
        name=hostile, address=hostile, policy=PolicyTitle(name=hostile, version=hostile)
    )
    report = sample.passed().model_copy(update={"letterhead": letterhead_of(company)})
    for locale in ("en", "zh_CN"):
        html = render_html(report, locale)
        assert "<script" not in html
        assert "<img" not in html


@pytest.mark.pdf
@pytest.mark.parametrize(
    ("locale", "expected"),
    [("en", r"Page{n}of{all}"), ("zh_CN", "第{n}页，共{all}页")],
)
def test_each_page_of_the_pdf_has_page_number_page_count_and_report_number(
    locale: str, expected: str
) -> None:
    pages = PdfReader(io.BytesIO(render_pdf(render_html(official(), locale)))).pages
    assert len(pages) >= 2
    for number, page in enumerate(pages, 1):
        text = re.sub(r"\s+", "", page.extract_text())
        assert expected.format(n=number, all=len(pages)) in text
        assert report_number(sample.RUN) in text


def test_report_number_is_stable_and_differs_between_runs_of_a_day() -> None:
    number = report_number(sample.RUN)
    assert re.fullmatch(r"BACKUP-OFFSITE-20261124-[0-9A-F]{8}", number)
    assert report_number(sample.RUN.model_copy()) == number
    others = {report_number(sample.RUN.model_copy(update={"run_id": f"{n}"})) for n in range(999)}
    assert len(others | {number}) == 1000


def test_report_number_has_the_day_in_the_timezone_of_the_policy_pack() -> None:
    """The run starts at 18:00 UTC, which is the next day in Shanghai."""
    run = sample.RUN.model_copy(update={"started_at": datetime(2026, 11, 23, 18, tzinfo=UTC)})
    assert "-20261124-" in report_number(run)
    assert "-20261123-" in report_number(run.model_copy(update={"timezone": "UTC"}))


def test_signature_line_shows_known_name_and_day_and_leaves_room_for_the_rest() -> None:
    html = render_html(official(), "en")
    table = html.partition('<table class="signatures">')[2].partition("</table>")[0]
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", table, re.DOTALL)
    texts = [re.sub(r"<[^>]*>|&nbsp;|\s", " ", row).split() for row in rows]
    assert texts == [["Performed", "by", "陈晓", "2026-11-24"], ["Reviewed", "by"]]


def _page_with(block: BarChart | TrendChart) -> str:
    section = Section(heading=_("Results"), blocks=[block])
    return render_html(sample.passed().model_copy(update={"sections": [section]}), "en")


def test_chart_with_a_single_value_is_shown_as_a_table() -> None:
    point = TrendPoint(at=sample.FINISHED, value=3)
    single = TrendChart(caption=_("Rows"), points=[point])
    missing = TrendPoint(at=sample.FINISHED, value=None)
    bar = BarChart(caption=_("Rows"), category=_("Table"), bars=[Bar(label="a", value=1)])
    for block in (single, single.model_copy(update={"points": [point, missing]}), bar):
        html = _page_with(block)
        assert "<figure>" not in html
        assert ">Rows</span></caption>" in html
    two = single.model_copy(update={"points": [point, point]})
    assert "<figure>" in _page_with(two)


def test_chart_with_outcomes_has_a_legend_of_exactly_these_outcomes() -> None:
    bars = [
        Bar(label="a", value=1, status=Outcome.FAIL),
        Bar(label="b", value=2, status=Outcome.PASS),
        Bar(label="c", value=None, status=Outcome.ATTENTION),
    ]
    chart = BarChart(caption=_("Rows"), category=_("Table"), bars=bars)
    html = _page_with(chart)
    legend = html.partition('<p class="legend">')[2].partition("</p>")[0]
    words = re.sub(r"<title>.*?</title>|<[^>]*>|\s+", " ", legend).split()
    assert words == ["Legend:", "Passed", "Failed"]
    mixed = chart.model_copy(update={"bars": [*bars, Bar(label="d", value=3)]})
    legend = _page_with(mixed).partition('<p class="legend">')[2].partition("</p>")[0]
    assert re.sub(r"<[^>]*>|\s+", " ", legend).split()[-2:] == ["not", "judged"]
    plain = chart.model_copy(
        update={"bars": [bar.model_copy(update={"status": None}) for bar in bars]}
    )
    assert '<p class="legend">' not in _page_with(plain)


def test_letterhead_without_policy_or_effective_date_states_what_is_known() -> None:
    assert PACK.company is not None
    assert PACK.company.policy is not None
    policy = PACK.company.policy.model_copy(update={"effective_from": None})
    undated = letterhead_of(PACK.company.model_copy(update={"policy": policy}))
    assert undated is not None
    assert undated.policy is not None
    assert Translator("en").text(undated.policy).endswith("protection, 2026 edition")
    nameless = letterhead_of(PACK.company.model_copy(update={"policy": None}))
    assert nameless is not None
    assert nameless.policy is None
    assert letterhead_of(None) is None
