"""Refuse a server that is too old for a backup or lacks a feature that the database uses.

The extensions, collations, encoding and locale of the database are read from the archive's table of
contents, and not from the manifest. Therefore, the checks also work for restore points of earlier
versions of ParcelSeal, whose manifests have less content
(docs/decisions/0042-needs-of-a-database-from-its-archive.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors

from include.backup.archive_entry import Entry, archive_encoding
from include.backup.manifest import Manifest
from include.services.database import DatabaseAddress, connected
from include.services.errors import UsageError
from include.services.programs import (
    CLIENT_VARIABLE,
    SUPPORTED,
    listed,
    major_version,
    pg_version,
    require_fitting_client,
    require_fitting_server,
)

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
    """The encoding and default collation of a database.

    Attributes:
        encoding: PostgreSQL's name for the encoding, such as ``UTF8``.
        collation: provider and locale as display text, such as ``icu de``; empty if unknown.
        options: options of ``CREATE DATABASE`` without the encoding. If empty, the server's
            defaults are used.
    """

    encoding: str = "UTF8"
    collation: str = ""
    options: str = ""

    @classmethod
    def of_archive(cls, entries: Iterable[Entry]) -> DatabaseLocale:
        """Read the locale from the ``CREATE DATABASE`` statement that each archive contains."""
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
        """Return the encoding and the default collation of a database.

        The attribute ``options`` of the result is empty.
        """
        row = connection.execute(_LOCALE).fetchone()
        assert row is not None
        encoding, provider, locale = row
        return cls(encoding, _collation(_PROVIDERS[provider], *(locale or "").split(" ")))

    def create_options(self) -> list[str]:
        """Return the options of several ``CREATE DATABASE`` statements, to be tried in this order.

        The first options create a database with the same locale, if the locale is known. A server
        that lacks this locale refuses them. Every server accepts the last options.
        """
        encoding = f"ENCODING '{self.encoding}'"
        exact = [f"{encoding} {self.options}"] if self.options else []
        return [*exact, encoding, f"{encoding} LOCALE_PROVIDER libc LOCALE 'C'"]

    def sorts_like(self, other: DatabaseLocale) -> bool:
        """Return whether another locale has the same collation as this locale.

        If the collation of this locale is unknown, return True.

        Args:
            other: other locale.
        """
        return not self.collation or _plain(self.collation) == _plain(other.collation)


_LIBC = ("LC_COLLATE", "LC_CTYPE")


def _collation(provider: str, *names: str) -> str:
    return " ".join([provider, *dict.fromkeys(names)])


def _plain(collation: str) -> str:
    """Return a collation name in a form in which different spellings are equal.

    For example, the results for en_US.utf8 and en_US.UTF-8 are equal.
    """
    return collation.lower().replace("-", "").replace("posix", "c")


READS_ALL_ARCHIVES = 17  # versions 17 and 18 write archives of one layout


def require_fitting_target(manifest: Manifest, target: DatabaseAddress, action: str = "") -> None:
    """Refuse a target whose server is older than the server of the original database.

    An older server refuses some statements of a newer server, or interprets them differently. Call
    this function before anything is loaded.

    Args:
        manifest: manifest of the backup.
        target: database on the server to check.
        action: advice in the error message if the server is too old. If empty, the message advises
            to restore into a server of a newer version.

    Raises:
        UsageError: the server is too old or refuses the login. Also raised if the pg_restore of
            this machine is too old.
        ServiceError: the server cannot be reached.
    """
    require_reader(manifest)
    with connected(target) as connection:
        version = major_version(connection.info.server_version)
    original = major_version(manifest.server_version)
    if version < original:
        newer = listed(
            [supported for supported in SUPPORTED if supported >= original] or [original]
        )
        raise UsageError(
            f"The target {target.display_name} is on PostgreSQL {version}, and the backup is of "
            f"PostgreSQL {original}: it cannot be loaded into an older version. "
            "Nothing was loaded.",
            action or f"Restore into a server of PostgreSQL {newer}.",
        )


def require_dumpable(server: DatabaseAddress) -> None:
    """Refuse a server whose databases cannot be read by the pg_dump of this machine.

    Raises:
        UsageError: pg_dump does not support the version of the server, or the server refuses the
            login.
        ServiceError: the server cannot be reached.
    """
    with connected(server) as connection:
        require_fitting_server(
            connection.info.server_version, f"The server of {server.display_name}"
        )


def require_reader(manifest: Manifest) -> None:
    """Refuse a backup if the pg_restore of this machine is too old to read it.

    Raises:
        UsageError: pg_restore is too old, or the version of the client programs is not supported.
    """
    require_fitting_client()
    reader, writer = pg_version("pg_restore"), manifest.tools.get("pg_dump", "")
    if major_version(reader) < min(major_version(writer), READS_ALL_ARCHIVES):
        raise UsageError(
            f"Restore point {manifest.id} was written by pg_dump {writer}, and pg_restore "
            f"{reader} cannot read it.",
            f"Use client programs of version {major_version(writer)}: correct {CLIENT_VARIABLE}, "
            "or unset it to use the included programs.",
        )


_NAME = r'"(?:[^"]|"")+"|[a-z_][a-z0-9_]*'
_OWN_COLLATION = re.compile(
    rf"CREATE COLLATION (?:{_NAME})\.(?:{_NAME}) (?P<options>\(.*\));\s*$", re.DOTALL
)
# Quoted names and texts are matched as a whole, so that no part of them is read as a collation.
_USED_COLLATION = re.compile(
    rf"(?:COLLATE |\bcollation = )(?:pg_catalog\.)?(?P<name>{_NAME})(?![\w.\"])"
    r"|\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
)
# Entries of other kinds, such as functions and comments, may contain any name in their text.
_WITH_COLLATIONS = {
    *("TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "INDEX", "DOMAIN", "TYPE"),
    *("CONSTRAINT", "CHECK CONSTRAINT", "DEFAULT", "STATISTICS", "POLICY", "RULE"),
}
_EXTENSIONS = """
SELECT n.name,
       a.name IS NULL AS is_missing,
       coalesce(v.superuser AND NOT v.trusted, false) AND NOT EXISTS (
           SELECT FROM pg_extension e WHERE e.extname = n.name) AS needs_superuser
FROM unnest(%s::text[]) AS n (name)
LEFT JOIN pg_available_extensions a USING (name)
LEFT JOIN pg_available_extension_versions v
    ON v.name = a.name AND v.version = a.default_version
ORDER BY 1
"""
_COLLATIONS = """
SELECT collname, bool_or(collprovider = 'i') FROM pg_collation
WHERE collnamespace = 'pg_catalog'::regnamespace AND collname = ANY (%s)
  AND collencoding IN (-1, pg_char_to_encoding(%s))
GROUP BY 1
"""
# initdb imports this collation if the server was built with ICU; "unicode" exists on each server.
_HAS_ICU = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')"
_PROBE = "pg_temp.parcelseal_probe"
ACTION = (
    "Nothing was loaded. Install the missing features on that server. For an extension, install "
    "its package; if only a superuser may create it, the connection needs a superuser's login. "
    "For a collation, install the locale of the operating system, then run SELECT "
    "pg_import_system_collations('pg_catalog'); ICU collations need a server that was built with "
    "ICU. For an encoding: CREATE DATABASE ... TEMPLATE template0 ENCODING '...' LOCALE 'C'. Or "
    "use a server that has all features: another target of the restore, or another server for "
    "drills in the connection drill_db."
)


@dataclass(frozen=True)
class ServerNeeds:
    """The features that a database needs from its server.

    Attributes:
        extensions: names of the extensions that the database uses.
        own_collations: label and ``CREATE COLLATION`` options of each collation that the database
            defines.
        used_collations: names of PostgreSQL's own collations that definitions of the database use.
        locale: encoding and default collation of the database.
        archive_encoding: encoding of the archive's texts.
    """

    extensions: tuple[str, ...]
    own_collations: tuple[tuple[str, str], ...]
    used_collations: tuple[str, ...]
    locale: DatabaseLocale
    archive_encoding: str

    @classmethod
    def of_archive(cls, entries: Sequence[Entry]) -> ServerNeeds:
        """Read the needed features from the table of contents of an archive."""
        matches = [
            (entry, _OWN_COLLATION.match(entry.definition))
            for entry in entries
            if entry.kind == "COLLATION"
        ]
        return cls(
            extensions=tuple(sorted(e.name for e in entries if e.kind == "EXTENSION")),
            own_collations=tuple((e.label, match["options"]) for e, match in matches if match),
            used_collations=tuple(sorted(_used(entries))),
            locale=DatabaseLocale.of_archive(entries),
            archive_encoding=archive_encoding(entries),
        )

    def missing(self, connection: psycopg.Connection, *, is_target: bool) -> list[str]:
        """Return a description of each feature that a server lacks.

        Args:
            connection: connection to a database of the server.
            is_target: whether the backup is loaded into the connected database. If False, the
                backup is loaded into a database that is created later with the encoding of the
                original database.
        """
        server_encoding = connection.info.parameter_status("server_encoding") or ""
        encoding = server_encoding if is_target else self.locale.encoding
        lacking = _missing_extensions(connection, self.extensions)
        lacking += _missing_collations(connection, self.used_collations, encoding)
        if encoding == server_encoding:  # a collation is created for the encoding of its database
            lacking += [
                f"a feature that {label} needs ({reason})"
                for label, options in self.own_collations
                if (reason := _creation_problem(connection, options))
            ]
        if is_target:
            lacking += _missing_conversion(connection, self.archive_encoding, encoding)
        return lacking


def require_needs(
    entries: Sequence[Entry], target: DatabaseAddress, *, is_target: bool = True
) -> None:
    """Refuse a server that lacks a feature of the database in a backup.

    Args:
        entries: entries of the archive's table of contents.
        target: a database on the server to check.
        is_target: whether the backup is loaded into ``target``. If False, it is loaded into another
            database on the same server.

    Raises:
        UsageError: the server lacks features. The message names all of them.
        ServiceError: the server cannot be reached.
    """
    with connected(target) as connection:
        lacking = ServerNeeds.of_archive(entries).missing(connection, is_target=is_target)
    if lacking:
        raise UsageError(f"The server of {target.display_name} lacks {'; '.join(lacking)}.", ACTION)


def _used(entries: Iterable[Entry]) -> set[str]:
    names = set()
    for entry in entries:
        if entry.kind in _WITH_COLLATIONS:
            for match in _USED_COLLATION.finditer(entry.definition):
                name = match["name"]
                if name and name != "default":
                    names.add(name[1:-1].replace('""', '"') if name[0] == '"' else name)
    return names - {"default"}


def _missing_extensions(connection: psycopg.Connection, names: Sequence[str]) -> list[str]:
    rows = connection.execute(_EXTENSIONS, [list(names)]).fetchall()
    is_superuser = connection.info.parameter_status("is_superuser") == "on"
    return [
        f"the extension {name}"
        if is_missing
        else f"the extension {name}, which only a superuser may create"
        for name, is_missing, needs_superuser in rows
        if is_missing or (needs_superuser and not is_superuser)
    ]


def _missing_collations(
    connection: psycopg.Connection, names: Sequence[str], encoding: str
) -> list[str]:
    """Return a description of each given collation that a server lacks for an encoding.

    Args:
        connection: connection to a database of the server.
        names: names of PostgreSQL's own collations.
        encoding: PostgreSQL's name for the encoding of the database.
    """
    rows = connection.execute(_COLLATIONS, [list(names), encoding]).fetchall()
    needs_icu: dict[str, bool] = dict(rows)
    (has_icu,) = connection.execute(_HAS_ICU).fetchone() or (False,)
    return [
        f"the collation {name}"
        for name in names
        if name not in needs_icu or (needs_icu[name] and not has_icu)
    ]


def _creation_problem(connection: psycopg.Connection, options: str) -> str:
    """Try to create a collation, and return the server's error message.

    Args:
        connection: connection to a database of the server.
        options: options of the ``CREATE COLLATION`` statement.

    Returns:
        The message; empty if the collation can be created, or if the role may not create one.
    """
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"CREATE COLLATION {_PROBE} {options}".encode())
    except errors.InsufficientPrivilege:
        return ""  # the load reports a missing right
    except (errors.NotSupportedError, errors.DataError, errors.ProgrammingError) as error:
        return (error.diag.message_primary or "").rstrip(".")
    return ""


def _missing_conversion(connection: psycopg.Connection, source: str, target: str) -> list[str]:
    if source == target or target == "SQL_ASCII":
        return []
    if source == "SQL_ASCII":  # COPY would write bytes that are not text in the target's encoding
        return [f"the encoding SQL_ASCII of the backup (it has {target})"]
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_conversion WHERE condefault "
        "AND conforencoding = pg_char_to_encoding(%s) AND contoencoding = pg_char_to_encoding(%s))",
        [source, target],
    ).fetchone()
    return [] if row == (True,) else [f"a conversion of texts from {source} to {target}"]
