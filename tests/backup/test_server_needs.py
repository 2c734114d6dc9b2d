"""Test which features a database needs, as read from its archive's table of contents."""

from __future__ import annotations

import pytest

from include.backup.archive_entry import Entry
from include.backup.server_needs import DatabaseLocale, ServerNeeds


def entry(kind: str, definition: str, name: str = "x") -> Entry:
    return Entry(1, 1, name, kind, 2, definition, "public")


@pytest.mark.parametrize(
    ("kind", "definition", "names"),
    [
        ("TABLE", 'CREATE TABLE public.t (a text COLLATE pg_catalog."de-x-icu");', ("de-x-icu",)),
        ("TABLE", "CREATE TABLE t (a text COLLATE pg_catalog.unicode);", ("unicode",)),
        ("INDEX", 'CREATE INDEX i ON t USING btree (a COLLATE "C");', ("C",)),
        (
            "TYPE",
            'CREATE TYPE r AS RANGE (\n    collation = pg_catalog."it-x-icu"\n);',
            ("it-x-icu",),
        ),
        ("TABLE", 'CREATE TABLE t (a text COLLATE public.german, b text COLLATE "s".x);', ()),
        ("TABLE", 'CREATE TABLE t ("COLLATE pg_catalog.""q""" text);', ()),
        ("TABLE", "CREATE TABLE t (a text DEFAULT 'it''s COLLATE \"q\"'::text);", ()),
        ("FUNCTION", 'CREATE FUNCTION f() ... ORDER BY a COLLATE "q"', ()),
        ("COMMENT", "COMMENT ON TABLE t IS 'COLLATE \"q\"';", ()),
    ],
)
def test_used_collations_of_archive_omit_names_in_string_literals_and_function_bodies(
    kind: str, definition: str, names: tuple[str, ...]
) -> None:
    """A collation name in a text or a function body must not make a restore fail."""
    assert ServerNeeds.of_archive([entry(kind, definition)]).used_collations == names


@pytest.mark.parametrize(
    ("options", "locale"),
    [
        (
            "ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C.UTF-8' ICU_LOCALE = 'de'",
            DatabaseLocale(
                "UTF8", "icu de", "LOCALE_PROVIDER icu LOCALE 'C.UTF-8' ICU_LOCALE 'de'"
            ),
        ),
        (
            "ENCODING = 'EUC_CN' LOCALE_PROVIDER = libc LOCALE = 'C' TABLESPACE = fast",
            DatabaseLocale("EUC_CN", "libc C", "LOCALE_PROVIDER libc LOCALE 'C'"),
        ),
        (
            "ENCODING = 'UTF8' LOCALE_PROVIDER = libc LC_COLLATE = 'C' LC_CTYPE = 'de_DE.utf8'",
            DatabaseLocale(
                "UTF8",
                "libc C de_DE.utf8",
                "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'de_DE.utf8'",
            ),
        ),
    ],
)
def test_database_locale_is_read_from_create_database_statement_of_archive(
    options: str, locale: DatabaseLocale
) -> None:
    name = '"ENCODING = x"'
    definition = f"CREATE DATABASE {name} WITH TEMPLATE = template0 {options};\n"
    assert DatabaseLocale.of_archive([entry("DATABASE", definition)]) == locale


@pytest.mark.parametrize(
    ("other", "is_alike"),
    [("libc en_US.utf8", True), ("libc C", False), ("icu en-US", False)],
)
def test_database_locales_that_differ_only_in_spelling_sort_alike(
    other: str, is_alike: bool
) -> None:
    original = DatabaseLocale("UTF8", "libc en_US.UTF-8")
    assert original.sorts_like(DatabaseLocale("UTF8", other)) is is_alike
