"""Encoding and default collation of a backed up database, and options to create its like."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from include.backup.archive_entry import Entry

_CREATE = re.compile(
    r'CREATE DATABASE (?:"(?:[^"]|"")*"|\S+) WITH TEMPLATE = template0(?P<options>.*)'
)
_OPTION = re.compile(r"([A-Z_]+) = ('(?:[^']|'')*'|\w+)")
# Versions before 17 name the column of the locale daticulocale, and have none for other providers.
_LOCALE = """
SELECT pg_encoding_to_char(d.encoding), d.datlocprovider, CASE d.datlocprovider
    WHEN 'c' THEN d.datcollate || ' ' || d.datctype
    ELSE coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') END
FROM pg_database d WHERE d.datname = current_database()
"""
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


@dataclass(frozen=True)
class DatabaseLocale:
    """Encoding and default collation of a database.

    Attributes:
        encoding: as PostgreSQL names it, ``UTF8``.
        collation: provider and locale for people, ``icu de``; empty if unknown.
        options: of ``CREATE DATABASE``, without the encoding; empty for those of the server.
    """

    encoding: str = "UTF8"
    collation: str = ""
    options: str = ""

    @classmethod
    def of_archive(cls, entries: Iterable[Entry]) -> DatabaseLocale:
        """Read the ``CREATE DATABASE`` statement that each archive has."""
        for entry in entries:
            match = _CREATE.match(entry.definition) if entry.kind == "DATABASE" else None
            if match:
                return cls._of_options(dict(_OPTION.findall(match["options"])))
        return cls()

    @classmethod
    def _of_options(cls, options: dict[str, str]) -> DatabaseLocale:
        encoding = options.pop("ENCODING", "'UTF8'").strip("'")
        options = {key: text for key, text in options.items() if "LOCALE" in key or key in _LIBC}
        provider = options.get("LOCALE_PROVIDER", "libc")
        libc = options.get("LOCALE", "''")
        names = {
            "icu": [options.get("ICU_LOCALE", libc)],
            "builtin": [options.get("BUILTIN_LOCALE", libc)],
        }.get(provider, [options.get(key, libc) for key in _LIBC])
        return cls(
            encoding,
            _collation(provider, *(name.strip("'") for name in names)),
            " ".join(f"{key} {text}" for key, text in options.items()),
        )

    @classmethod
    def of_database(cls, connection: psycopg.Connection) -> DatabaseLocale:
        """Read the locale of a database; ``options`` stay empty."""
        row = connection.execute(_LOCALE).fetchone()
        assert row is not None
        encoding, provider, locale = row
        return cls(encoding, _collation(_PROVIDERS[provider], *(locale or "").split(" ")))

    def create_options(self) -> list[str]:
        """Return options of ``CREATE DATABASE``, the most faithful first.

        A server that lacks the locale refuses the first option. The last option fits each encoding
        on each server.
        """
        encoding = f"ENCODING '{self.encoding}'"
        exact = [f"{encoding} {self.options}"] if self.options else []
        return [*exact, encoding, f"{encoding} LOCALE_PROVIDER libc LOCALE 'C'"]

    def sorts_like(self, other: DatabaseLocale) -> bool:
        """Return whether both have the same collation, by its name."""
        return not self.collation or _plain(self.collation) == _plain(other.collation)


_LIBC = ("LC_COLLATE", "LC_CTYPE")


def _collation(provider: str, *names: str) -> str:
    return " ".join([provider, *dict.fromkeys(names)])


def _plain(collation: str) -> str:
    """Return one spelling of a locale: some systems write en_US.utf8, others en_US.UTF-8."""
    return collation.lower().replace("-", "").replace("posix", "c")
