"""Search everything that ParcelSeal writes for customer values, which must not occur there."""

from __future__ import annotations

import base64
import email
import html
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.policy import default
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

SPACE = re.compile(rb"\s")
NOTICE_SUBJECT = "个人信息安全事件告知书"  # subject of notices to affected people
# Not written by ParcelSeal; for example, the PostgreSQL server itself logs failed statements.
NOT_OURS = ("postgres/server.log", "postgres/data", "sample", "packs")


@dataclass(frozen=True)
class Match:
    """A customer value at a forbidden location."""

    value: str
    location: str


def forms(value: str) -> set[bytes]:
    """Return the encodings of a value in text, JSON, HTML, URLs, hex and base64.

    Base64 is included for every alignment of the value's first byte.
    """
    plain = value.encode()
    matches = {
        plain,
        json.dumps(value)[1:-1].encode(),
        html.escape(value).encode(),
        value.encode("ascii", "xmlcharrefreplace"),
        value.encode("unicode_escape"),
        repr(plain)[2:-1].encode(),
        quote(value).encode(),
        plain.hex().encode(),
        value.encode("utf-16-be"),
        value.encode("utf-16-le"),
    }
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + plain)
        # The first and last characters also encode bits of the neighbouring bytes.
        inner = encoded[(shift * 8 + 5) // 6 : (shift + len(plain)) * 8 // 6]
        matches |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return matches


class Search:
    """A search for customer values.

    Args:
        values: the customer values.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._forms = [
            (value, form, SPACE.search(form) is not None)
            for value in values
            for form in forms(value)
        ]

    def content(self, content: bytes, location: str) -> Iterator[Match]:
        """Find values in bytes, even if a line break divides them."""
        joined = b"".join(content.split())
        # An encoding without white space that is in the content is in the joined content too.
        matches = {
            value
            for value, form, has_space in self._forms
            if form in (content if has_space else joined)
        }
        return (Match(value, location) for value in sorted(matches))

    def folder(self, folder: Path) -> Iterator[Match]:
        """Find values in every file below a folder, in the text of PDFs and in file names."""
        for path in sorted(folder.rglob("*")):
            location = path.relative_to(folder).as_posix()
            if not path.is_file() or location.startswith(NOT_OURS):
                continue
            content = path.read_bytes() + b"\n" + location.encode()
            if path.suffix == ".eml":
                content = without_its_reader(content)
            if path.suffix == ".pdf":
                content += pdf_text(path)
            yield from self.content(content, location)

    def tables(self, conn: psycopg.Connection) -> Iterator[Match]:
        """Find values in every row of every table of a database."""
        names = conn.execute(
            "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).fetchall()
        for name in names:
            table = sql.Identifier(*name)
            with conn.cursor() as cursor:
                with cursor.copy(sql.SQL("COPY {} TO STDOUT").format(table)) as rows:
                    content = b"".join(rows)
                yield from self.content(content.replace(b"\\\\", b"\\"), ".".join(name))
                # COPY writes bytes as hex, so text inside of them is not found above.
                for column in _bytes_columns(conn, name):
                    query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), table)
                    for (value,) in conn.execute(query):
                        yield from self.content(value or b"", ".".join(name))


def without_its_reader(mail: bytes) -> bytes:
    """Return a notice of an incident without its ``To:`` header, and other mails unchanged.

    A notice cannot be sent without the customer's address, which may be only in this header.
    """
    head, gap, body = mail.partition(b"\n\n" if b"\r\n\r\n" not in mail else b"\r\n\r\n")
    subject = str(email.message_from_bytes(head, policy=default)["Subject"] or "")
    if subject != NOTICE_SUBJECT:
        return mail
    return re.sub(rb"(?im)^To:.*$", b"To:", head) + gap + body


def pdf_text(path: Path) -> bytes:
    """Return the text layer of a PDF."""
    # Poppler's program is much faster than pypdf.
    words = ["pdftotext", "-q", "-enc", "UTF-8", str(path), "-"]
    return subprocess.run(words, capture_output=True, check=True).stdout


def _bytes_columns(conn: psycopg.Connection, name: tuple[str, str]) -> list[str]:
    query = (
        "SELECT column_name FROM information_schema.columns"
        " WHERE (table_schema, table_name) = (%s, %s) AND data_type = 'bytea'"
    )
    return [row[0] for row in conn.execute(query, name)]
