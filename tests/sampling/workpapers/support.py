"""Create workpapers for tests, and make the changes that auditors make in a workbook."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.writer.excel import ExcelWriter

from include.messages import Message
from include.reports.i18n import Translator
from include.sampling.workpapers.reading import Returned, read
from include.sampling.workpapers.writing import Attribute, Item, Paper, Workpapers, form, write
from include.workbooks.faults import WorkbookRefused
from include.workbooks.saving import decode_character_references, unpack_archive

HOSTILE = (
    "=1+1",
    '=HYPERLINK("http://evil.example","x")',
    "+SUM(A1:A9)",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "'quoted",
    'a"b,c;d',
    "第一行\n第二行",
    " blanks around ",
    "_x0041_",
    "_x005F_x000D_",
    "x005F_",
    "\\u0041",
    "a\x00b\x01\r\n\x1f",
    "\ufffe\ud800\u202e",
    "0012",
    "键" * 500,
    "k" * 40_000,
    "<b>&amp;</b>]]>",
)
"""Keys that a program might interpret as something else than text."""

LIBREOFFICE = Path(__file__).parent / "data" / "saved_by_libreoffice.xlsx"
OTHER_ANSWERS = {
    ("accesses", 1, "needed"): "不符合 No",
    ("accesses", 2, "reason"): "找不到 Not found",
    ("accesses", 3, "reason"): "",
    ("del/etions?", 2, "needed"): "不适用 N/A",
}
"""Answers other than Yes, by population, item and attribute."""
NOTES = {("accesses", 1): "=1+1 was\nwhat it said", ("del/etions?", 2): "-5 days，第二行\n不适用"}
PEOPLE = {
    form.PERFORMED_BY: "陈晓",
    form.PERFORMED_ON: date(2026, 10, 5),
    form.REVIEWED_BY: "Li Na",
}


def bilingual(english: str, chinese: str) -> Message:
    return Message(text=english, translations={"en": english, "zh-CN": chinese})


ATTRIBUTES = (
    Attribute(
        "needed",
        bilingual("Was the opening needed for an order?", "查阅是否为处理订单所必需？"),
        bilingual("The log of work names the order.", "工作日志载有该订单。"),
    ),
    Attribute(
        "reason",
        bilingual("Is the reason recorded?", "是否记录了原因？"),
        bilingual("The reason says more than 'work'.", "原因不只是“工作”二字。"),
    ),
)


def paper(keys: tuple[str, ...] = HOSTILE, population: str = "accesses") -> Paper:
    items = tuple(
        Item(number, 1 + number % 2, 37 * number, key, "夜间 night" if number % 2 else "=day")
        for number, key in enumerate(keys, 1)
    )
    title = bilingual("Accesses to customer records", "客户记录的查阅")
    return Paper(population, title, ATTRIBUTES, items, "cd" * 32, 18_234)


def workpapers(*papers: Paper, audit: str = "2026Q3", digest: str = "ab" * 32) -> Workpapers:
    return Workpapers(
        audit=audit,
        stage=1,
        draw_sha256=digest,
        issued_at=datetime(2026, 10, 5, 9, 30, tzinfo=ZoneInfo("Asia/Shanghai")),
        timezone="Asia/Shanghai",
        papers=papers or (paper(), paper(("a1", "a2", "a3"), "del/etions?")),
    )


def edited(content: bytes, change: Callable[[Workbook], object]) -> bytes:
    """Open a file, change it, and save it as a spreadsheet program does; return the new content."""
    book = load_workbook(io.BytesIO(content))
    for sheet in book:  # openpyxl forgets that a text beginning with "=" was a text
        for row in sheet.iter_rows():
            for cell in row:
                if isinstance(cell.value, str) and cell.data_type != "f":
                    cell.data_type = "s"
    change(book)
    saved, written = io.BytesIO(), io.BytesIO()
    ExcelWriter(book, zipfile.ZipFile(saved, "w")).save()  # the parts are compressed below
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in unpack_archive(saved.getvalue()).items():
            archive.writestr(
                name, decode_character_references(part)
            )  # as spreadsheet programs write them
    return written.getvalue()


def fill(
    book: Workbook,
    issued: Workpapers,
    answers: Mapping[tuple[str, int, str], str] | None = None,
    notes: Mapping[tuple[str, int], str] | None = None,
    people: Mapping[str, object] = PEOPLE,
) -> None:
    """Fill in a workbook as an auditor does.

    Args:
        book: the workbook.
        issued: the workpapers as issued.
        answers: words by population, number of the item and id of the attribute; all other answers
            are "Yes".
        notes: notes by population and number of the item.
        people: values of the fields on the first sheet.
    """
    for row in book[form.INSTRUCTIONS].iter_rows(max_col=2):
        if row[0].value in people:
            row[1].value = people[row[0].value]
    for issued_paper in issued.papers:
        sheet = book[issued.sheets[issued_paper.population]]
        for row, item in enumerate(issued_paper.items, form.HEADER_ROW + 1):
            for column, attribute in enumerate(issued_paper.attributes, len(form.FIXED) + 1):
                word = (answers or {}).get((issued_paper.population, item.number, attribute.id))
                cell = sheet.cell(row, column)
                cell.value = form.WORDS[form.Answer.MET] if word is None else word
                cell.data_type = "s"
            note = (notes or {}).get((issued_paper.population, item.number))
            if note is not None:
                cell = sheet.cell(row, len(issued_paper.headers))
                cell.value = note
                cell.data_type = "s"


def filled(issued: Workpapers, change: Callable[[Workbook], object] | None = None) -> bytes:
    """Return a completed workbook.

    Args:
        issued: the workpapers as issued.
        change: function that changes the completed workbook; None for no change.
    """

    def work(book: Workbook) -> None:
        fill(book, issued)
        if change:
            change(book)

    return edited(write(issued), work)


def repacked(
    content: bytes,
    replace: Mapping[str, tuple[str, str]] | None = None,
    add: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return a copy of a zip file in which files were changed or added, as by an attacker.

    Args:
        content: content of the zip file, such as a workbook.
        replace: name of a file in it -> regular expression, and the text that replaces its match.
        add: name of a new file in it -> content.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            body = source.read(name)
            if name in (replace or {}):
                pattern, words = (replace or {})[name]
                text, count = re.subn(
                    pattern, lambda _match, words=words: words, body.decode(), count=1, flags=re.S
                )
                assert count, f"nothing to replace in {name}"
                body = text.encode()
            target.writestr(name, body)
        for name, body in (add or {}).items():
            target.writestr(name, body)
    return stream.getvalue()


def read_back(content: bytes, issued: Workpapers | None = None) -> Returned:
    return read(content, "2026Q3.xlsx", issued or workpapers(), clean=str)


def faults(content: bytes, issued: Workpapers | None = None) -> list[tuple[str, str, str]]:
    """Return sheet, cell and message of each fault for which a file is refused."""
    with pytest.raises(WorkbookRefused) as refused:
        read_back(content, issued)
    english, chinese = Translator("en"), Translator("zh_CN")
    for fault in refused.value.faults:
        assert english.text(fault.as_message) in str(refused.value)
        assert english.text(fault.action)
        assert chinese.text(fault.message) != english.text(fault.message)
    return [
        (fault.sheet, fault.cell, english.text(fault.message)) for fault in refused.value.faults
    ]
