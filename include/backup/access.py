"""Close the target database of a restore to other roles, and open it when its data may be read.

A restored database contains records that were erased after the backup. The restore has to delete or
mask these records again, which is called the replay of erasures. Until the replay has ended, other
roles must not read the database. SECURITY DEFINER functions need extra care: PostgreSQL lets every
role execute a new function, and such a function reads tables with the rights of its owner.
Therefore, a restore revokes EXECUTE on these functions from PUBLIC.

The owner of a table can read it without a grant. Therefore, owners are also set only at the end, in
one transaction with the grants. If a restore fails earlier, the database stays closed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from include.backup.archive_entry import Entry, archive_encoding, codec_of
from include.backup.restore_program import TIMEOUT_STATEMENT, RestoreTarget, in_memory
from include.erasure.restored_copy import FIRST_OWN_OBJECT, suspend_event_triggers
from include.services.database import ADVISORY_LOCKS, DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.programs import ClientProgram

# Functions of extensions are excluded: the script of an extension sets the rights on them.
_FUNCTIONS = f"""
SELECT p.oid::int8, p.oid::regprocedure::text FROM pg_proc p
WHERE p.prosecdef AND p.oid >= {FIRST_OWN_OBJECT} AND NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""  # noqa: S608 - fixed text


def definer_functions(connection: psycopg.Connection[Any]) -> dict[int, str]:
    """Return the SECURITY DEFINER functions and procedures of a database.

    The key is the OID, and the value is the name as SQL. Functions that belong to an extension are
    omitted.
    """
    return dict(connection.execute(_FUNCTIONS).fetchall())


def definers_of(target: DatabaseAddress) -> frozenset[int]:
    """Return the OIDs of the SECURITY DEFINER functions of a database. Call this before a restore.

    `close_functions` needs the result to recognise the functions that the restore created.

    Raises:
        ServiceError: the database failed.
    """
    with connected(target) as connection:
        return frozenset(definer_functions(connection))


def close_functions(target: DatabaseAddress, existing: Collection[int]) -> None:
    """Revoke EXECUTE from PUBLIC on the SECURITY DEFINER functions that a restore created.

    Args:
        target: database into which the backup is restored.
        existing: OIDs of the SECURITY DEFINER functions that the database had before the restore.

    Raises:
        ServiceError: the database failed.
    """
    with connected(target) as connection:
        _change(connection, "REVOKE EXECUTE ON ROUTINE {} FROM PUBLIC", existing)


def _change(connection: psycopg.Connection[Any], statement: str, existing: Collection[int]) -> None:
    for oid, name in definer_functions(connection).items():
        if oid not in existing:
            connection.execute(statement.format(name).encode())  # regprocedure quotes the name


OPENING = {  # entries of an archive that give other roles access to restored data
    "ACL",
    "DEFAULT ACL",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
}
_DATA = {"TABLE DATA", "SEQUENCE SET", "BLOBS", "MATERIALIZED VIEW DATA", "STATISTICS DATA"}
_OWNER_OF_ENTRY = re.compile(r"^(-- (?:Data for )?Name: .*; Owner: ).*$")
# Commands for psql, not SQL; and the encoding of the script, which is sent in UTF-8.
_NOT_SENT = re.compile(r"^(?:\\(?:un)?restrict \w+|SET client_encoding = '\w+';)$")
_ROLE = r'("(?:[^"]|"")+"|[^\s;,"]+)'
_ROLES = re.compile(
    rf"\b(?:OWNER TO|TO|FROM|FOR ROLE|SET SESSION AUTHORIZATION) {_ROLE}"
    r"(?= |;|$)(?=(?: WITH GRANT OPTION)?;$| IN SCHEMA | GRANT | REVOKE )",
    re.MULTILINE,
)
_CONNECT = """
SELECT pg_has_role(d.datdba, 'USAGE'), EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT'),
    coalesce(shobj_description(d.oid, 'pg_database'), '')
FROM pg_database d WHERE d.datname = current_database()
"""
# Rights that default privileges grant to other roles on each table and large object that this role
# creates.
_OPENED_BY_DEFAULT = """
SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) a
WHERE d.defaclrole = current_user::regrole AND d.defaclobjtype IN ('r', 'L')
  AND a.grantee <> d.defaclrole LIMIT 1
"""
# The database comment contains this text while the database is closed. A later restore can thus
# detect that ParcelSeal closed the database, and open it again.
CLOSED = "Closed by ParcelSeal until its restore is finished."
_LOCK = "hashtextextended('parcelseal restore', 0)"
_STILL_LOCKED = f"SELECT FROM ({ADVISORY_LOCKS}) AS held WHERE key = {_LOCK}"


@contextmanager
def sole_restore(target: DatabaseAddress) -> Iterator[Callable[[], None]]:
    """Hold a lock during the block, so that no other restore into the same database can run.

    When a restore has deleted the erased records again, it opens the database to other roles. Two
    restores at the same time would load the same records. The restore that ends first would open
    the database while it still contains erased records that the other restore has loaded.

    Args:
        target: database into which the backup is restored. A session in this database holds the
            lock.

    Yields:
        A function that raises ServiceError if the lock has been lost.

    Raises:
        UsageError: another restore into the database is running.
        ServiceError: the database failed.
    """
    connection = target.connect(autocommit=True)
    try:
        # This session is idle while other sessions load; a limit of the server would end it.
        connection.execute("SELECT set_config('idle_session_timeout', '0', false)")
        row = connection.execute(f"SELECT pg_try_advisory_lock({_LOCK})").fetchone()
        if row != (True,):
            raise UsageError(
                f"Another restore into {target.display_name} is running.",
                "Wait until the other restore ends, or restore into another database.",
            )

        def confirm() -> None:
            with suppress(psycopg.OperationalError):
                if connection.execute(_STILL_LOCKED).fetchone() is not None:
                    return
            raise ServiceError(
                f"The lock that keeps other restores out of {target.display_name} was lost, so the "
                "target was not opened.",
                "Drop the target, and restore into a new database.",
            )

        try:
            yield confirm
        finally:
            # Without this, a busy server may keep the lock for a while after the connection ends.
            with suppress(psycopg.OperationalError):
                connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")
    finally:
        connection.close()


@dataclass
class TargetAccess:
    """A switch that closes the target database of a restore to other roles, and opens it again.

    Args:
        target: database into which the backup is restored.
        owners: whether `open` sets the owners and grants that the backup contains, and creates its
            publications and subscriptions.
        is_new: True if no application uses the target yet. In this case, `close` revokes the
            CONNECT right from PUBLIC, and `open` grants it again. This requires that the role of
            ``target`` owns the database.

    Attributes:
        is_unfinished: whether `close` began to change the target and `open` has not completed.
    """

    target: DatabaseAddress
    owners: bool
    is_new: bool
    is_unfinished: bool = field(default=False, init=False)
    _statements: str = field(default="", init=False)
    _functions: frozenset[int] = field(default=frozenset(), init=False)  # before the restore
    _closed: bool = field(default=False, init=False)
    _others_connect: bool = field(default=True, init=False)
    _comment: str = field(default="", init=False)  # without `CLOSED`

    def close(self, head: bytes, entries: Sequence[Entry]) -> None:
        """Close the target to other roles. Call this method before anything is loaded.

        While the CONNECT right is revoked from PUBLIC, the comment of the target database contains
        the text `CLOSED`. `open` removes this text. After a failed restore, the text remains.

        Args:
            head: header and table of contents of the archive, as bytes.
            entries: entries of the same table of contents, decoded.

        Raises:
            UsageError: a role that the archive names is missing. Also raised if default privileges
                of the target would grant rights on each new table.
            ServiceError: the database or pg_restore failed.
        """
        if self.owners:
            self._statements = opening_statements(head, entries)
            _require_roles(self.target, self._statements)
        with connected(self.target) as connection:
            if connection.execute(_OPENED_BY_DEFAULT).fetchone() is not None:
                raise UsageError(
                    f"The target {self.target.display_name} grants rights on new tables by "
                    f"default: "
                    "other roles could read erased records before they are erased again.",
                    "Create the target from template0, or revoke these rights with ALTER DEFAULT "
                    "PRIVILEGES.",
                )
            self.is_unfinished = True
            self._functions = frozenset(definer_functions(connection))
            row = connection.execute(_CONNECT).fetchone()
            assert row is not None
            is_owner, self._others_connect, comment = row
            was_closed, self._comment = _without_mark(comment)
            if is_owner and self._others_connect and self.is_new:
                self._change(connection, "REVOKE CONNECT ON DATABASE {} FROM PUBLIC")
                marked = f"{CLOSED} {self._comment}" if self._comment else CLOSED
                self._set_comment(connection, marked)
                self._closed, self._others_connect = True, False
            elif is_owner and was_closed and self._others_connect:
                self._set_comment(connection, self._comment)  # a person opened it again
            elif is_owner and was_closed:
                self._closed = True  # an interrupted restore closed it

    @property
    def is_closed(self) -> bool:
        """Return whether this or an earlier restore revoked the CONNECT right from PUBLIC."""
        return self._closed

    @property
    def connect_state(self) -> str:
        """Return a sentence that says whether other roles can connect to the target now."""
        if self._closed:
            return "Other roles may not connect to it."
        if self._others_connect:
            return "Other roles may connect to it as before: close it by hand."
        return "Roles with their own grant may connect to it as before."

    @property
    def keeps_public_out(self) -> bool:
        """Return whether PUBLIC lacks the CONNECT right although no restore revoked it.

        In this case, `open` does not grant the right.
        """
        return not self._closed and not self._others_connect

    def open(self) -> None:
        """Set the owners and grants of the backup, and let other roles connect again.

        Raises:
            ServiceError: a statement failed, and the target stays closed.
        """
        statements = self._statements
        if self.owners and not RestoreTarget.of(self.target).knows_timeout:
            statements = statements.replace(f"\n{TIMEOUT_STATEMENT}\n", "\n", 1)
        with connected(self.target) as connection:
            try:
                if self.owners:
                    with suspend_event_triggers(connection):
                        # First: the archive's grants revoke EXECUTE again. pg_dump writes them for
                        # functions that PUBLIC may execute, as PostgreSQL creates them.
                        _change(
                            connection, "GRANT EXECUTE ON ROUTINE {} TO PUBLIC", self._functions
                        )
                        connection.execute(statements.encode("utf-8", "surrogateescape"))
                if self._closed:
                    self._change(connection, "GRANT CONNECT ON DATABASE {} TO PUBLIC")
                    self._set_comment(connection, self._comment)
            except psycopg.OperationalError:
                raise
            except psycopg.Error as error:
                raise ServiceError(
                    f"Owners and grants cannot be restored into {self.target.display_name}: "
                    f"{type(error).__name__}, {error.sqlstate}.",
                    "Erasures were replayed, and other roles have no access. Read the "
                    "server's log, "
                    "then grant access by hand.",
                ) from None
        self.is_unfinished = False

    def _change(self, connection: psycopg.Connection, statement: str) -> None:
        connection.execute(sql.SQL(statement).format(sql.Identifier(self.target.name)))

    def _set_comment(self, connection: psycopg.Connection, comment: str) -> None:
        statement = sql.SQL("COMMENT ON DATABASE {} IS {}")
        text = sql.Literal(comment or None)
        connection.execute(statement.format(sql.Identifier(self.target.name), text))


def _without_mark(comment: str) -> tuple[bool, str]:
    """Return whether a database comment contains `CLOSED`, and the comment without this text."""
    before, mark, after = comment.partition(CLOSED)
    if not mark or (after and not after.startswith(" ")):
        return False, comment
    return True, before + after[1:]


def opening_statements(head: bytes, entries: Sequence[Entry]) -> str:
    """Return the SQL statements with which a restored database is opened to other roles.

    They set owners and grants, and create publications and subscriptions, as the archive of the
    backup defines them. pg_restore has no option to print only the statements that set owners.
    Therefore, this function compares the scripts that pg_restore prints with and without the option
    ``--no-owner``. The lines that only the script without this option contains set the owners.

    Args:
        head: header and table of contents of the archive, as bytes.
        entries: entries of the same table of contents, decoded.

    Raises:
        ServiceError: pg_restore cannot read the archive's head.
    """
    plain = [entry for entry in entries if entry.kind not in OPENING | _DATA]
    codec = codec_of(archive_encoding(entries))
    owned = _script(head, plain, codec).splitlines()
    owners: list[str] = []
    without = iter([*_script(head, plain, codec, "--no-owner").splitlines(), None])
    expected = next(without)
    for line in owned:
        if line == expected:
            expected = next(without)
        else:
            owners.append(line)
    if expected is not None:
        raise ServiceError(
            "The owners of the backup's objects cannot be read from pg_restore's script.",
            "Restore without --owners, and set owners and grants by hand.",
        )
    grants = _script(head, [entry for entry in entries if entry.kind in OPENING], codec)
    return "\n".join([*owners, grants])


def _script(head: bytes, entries: Sequence[Entry], codec: str, *more: str) -> str:
    """Return the SQL script that pg_restore prints for some entries of an archive.

    The names of owners are removed from the comment lines. Otherwise, the scripts with and without
    the option ``--no-owner`` would differ not only in their statements.

    Args:
        head: header and table of contents of the archive, as bytes.
        entries: entries for which pg_restore prints SQL.
        codec: Python codec of the script.
        *more: further options of pg_restore.
    """
    if not entries:
        return ""
    with in_memory(head) as archive, tempfile.NamedTemporaryFile("w") as listed:
        listed.write("".join(f"{entry.dump_id};\n" for entry in entries))
        listed.flush()
        words = ["--file=-", f"--use-list={listed.name}", *more, f"/proc/self/fd/{archive}"]
        with ClientProgram("pg_restore", words, pass_fds=(archive,)) as program:
            script = b"".join(program.pieces())
            code = program.wait()
    if code:
        raise ServiceError(
            "pg_restore cannot read the owners and grants of the backup.",
            "Restore without --owners, and set owners and grants by hand.",
        )
    lines = script.decode(codec, "surrogateescape").split("\n")
    return "\n".join(
        _OWNER_OF_ENTRY.sub(r"\1", line) for line in lines if not _NOT_SENT.match(line)
    )


def _require_roles(target: DatabaseAddress, statements: str) -> None:
    """Raise UsageError if a role that SQL statements name does not exist on the target's server.

    Args:
        target: database into which the backup is restored.
        statements: SQL statements, as `opening_statements` returns them.
    """
    named = {
        role[1:-1].replace('""', '"') if role.startswith('"') else role
        for role in _ROLES.findall(statements)
    } - {"PUBLIC", "DEFAULT"}
    with connected(target) as connection:
        roles = {name for (name,) in connection.execute("SELECT rolname::text FROM pg_roles")}
    if missing := sorted(named - roles):
        raise UsageError(
            f'Restoring into {target.display_name}: role "{missing[0]}" does not exist.',
            "Create the role first. Owners, grants and policies of the backup refer to it.",
        )
