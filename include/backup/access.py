"""Keep a restored database closed until its erasures were replayed, then set owners and grants.

PostgreSQL lets PUBLIC execute each new function. A SECURITY DEFINER function reads tables with its
owner's rights, so it would show rows before their erasure is replayed, and to roles to which the
original database gave no right.

An owner reads its tables without any grant, so owners come last too. Everything that opens the
database is one transaction: a restore that fails before it leaves nothing open.
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
from include.erasure.restored_copy import FIRST_OWN_OBJECT, event_triggers_suspended
from include.services.database import ADVISORY_LOCKS, DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.programs import ClientProgram

# Functions of the database's users: an extension's script sets the rights of its own functions.
_FUNCTIONS = f"""
SELECT p.oid::int8, p.oid::regprocedure::text FROM pg_proc p
WHERE p.prosecdef AND p.oid >= {FIRST_OWN_OBJECT} AND NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""  # noqa: S608 - fixed text


def definer_functions(connection: psycopg.Connection[Any]) -> dict[int, str]:
    """Return the SECURITY DEFINER functions and procedures of a database: oid and SQL name."""
    return dict(connection.execute(_FUNCTIONS).fetchall())


def definers_of(target: DatabaseAddress) -> frozenset[int]:
    """Return the oids of a database's SECURITY DEFINER functions, before a restore adds others.

    Raises:
        ServiceError: the database failed.
    """
    with connected(target) as connection:
        return frozenset(definer_functions(connection))


def close_functions(target: DatabaseAddress, existing: Collection[int]) -> None:
    """Revoke EXECUTE from PUBLIC on the SECURITY DEFINER functions that a restore created.

    Args:
        target: the database that is restored.
        existing: oids of functions that it had before the restore.

    Raises:
        ServiceError: the database failed.
    """
    with connected(target) as connection:
        _change(connection, "REVOKE EXECUTE ON ROUTINE {} FROM PUBLIC", existing)


def _change(connection: psycopg.Connection[Any], statement: str, existing: Collection[int]) -> None:
    for oid, name in definer_functions(connection).items():
        if oid not in existing:
            connection.execute(statement.format(name).encode())  # quoted by regprocedure


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
# Rights that others get on each table and large object that this role creates.
_OPENED_BY_DEFAULT = """
SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) a
WHERE d.defaclrole = current_user::regrole AND d.defaclobjtype IN ('r', 'L')
  AND a.grantee <> d.defaclrole LIMIT 1
"""
# Is in the database's comment while it is closed, so that a later try can open it again.
CLOSED = "Closed by ParcelSeal until its restore is finished."
_LOCK = "hashtextextended('parcelseal restore', 0)"
_STILL_LOCKED = f"SELECT FROM ({ADVISORY_LOCKS}) AS held WHERE key = {_LOCK}"


@contextmanager
def sole_restore(target: DatabaseAddress) -> Iterator[Callable[[], None]]:
    """Exclude other restores into the same database while the block runs.

    The first restore that ends would open the target while another has not replayed its erasures.

    Args:
        target: the database; the lock is a session's there.

    Yields:
        A function that raises ServiceError when the lock was lost meanwhile.

    Raises:
        UsageError: another restore into the database is at work.
        ServiceError: the database failed.
    """
    connection = target.connect(autocommit=True)
    try:
        # The server's own limit would end a session that waits for work elsewhere.
        connection.execute("SELECT set_config('idle_session_timeout', '0', false)")
        row = connection.execute(f"SELECT pg_try_advisory_lock({_LOCK})").fetchone()
        if row != (True,):
            raise UsageError(
                f"Another restore into {target.place} is at work.",
                "Wait for it to end, or restore into another database.",
            )

        def confirm() -> None:
            with suppress(psycopg.OperationalError):
                if connection.execute(_STILL_LOCKED).fetchone() is not None:
                    return
            raise ServiceError(
                f"The lock that keeps other restores out of {target.place} was lost, so the "
                "target was not opened.",
                "Drop the target, and restore into a new database.",
            )

        try:
            yield confirm
        finally:
            # A busy server ends the session, and with it the lock, some time after its client does.
            with suppress(psycopg.OperationalError):
                connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")
    finally:
        connection.close()


@dataclass
class TargetAccess:
    """Access of other roles to a database while it is restored.

    Args:
        target: the database.
        owners: restore owners, grants, publications and subscriptions of the backup at the end.
        is_new: whether the target is not in use yet. If the role owns it, other roles cannot
            connect to it until `open`.

    Attributes:
        is_unfinished: whether `close` began to change the target, and `open` has not ended.
    """

    target: DatabaseAddress
    owners: bool
    is_new: bool
    is_unfinished: bool = field(default=False, init=False)
    _statements: str = field(default="", init=False)
    _functions: frozenset[int] = field(default=frozenset(), init=False)  # not of the backup
    _closed: bool = field(default=False, init=False)
    _others_connect: bool = field(default=True, init=False)
    _comment: str = field(default="", init=False)  # of the database, as its people wrote it

    def close(self, head: bytes, entries: Sequence[Entry]) -> None:
        """Close the target to other roles; call it before the load.

        Until `open`, also after a failure, the database's comment says that it is closed.

        Args:
            head: header and table of contents of the archive.
            entries: the same, decoded.

        Raises:
            UsageError: a role of the archive is missing, or default privileges of the target would
                open each table as it is created.
            ServiceError: the database or pg_restore failed.
        """
        if self.owners:
            self._statements = opening_statements(head, entries)
            _require_roles(self.target, self._statements)
        with connected(self.target) as connection:
            if connection.execute(_OPENED_BY_DEFAULT).fetchone() is not None:
                raise UsageError(
                    f"The target {self.target.place} grants rights on new tables by default: "
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
                self._set_comment(connection, self._comment)  # it was opened by hand
            elif is_owner and was_closed:
                self._closed = True  # by an earlier try, which did not end

    @property
    def is_closed(self) -> bool:
        """Return whether `close` closed the target, or found it closed by an earlier restore."""
        return self._closed

    @property
    def connect_state(self) -> str:
        """Describe in a sentence which roles can connect while the target is not open."""
        if self._closed:
            return "Others may not connect to it."
        if self._others_connect:
            return "Others may connect to it as before: close it yourself."
        return "Roles with a grant of their own may connect to it as before."

    @property
    def keeps_public_out(self) -> bool:
        """Return whether `open` leaves the target without CONNECT for PUBLIC, as it was before."""
        return not self._closed and not self._others_connect

    def open(self) -> None:
        """Set the backup's owners and grants, and restore the target's right to connect.

        Raises:
            ServiceError: a statement failed; nothing is open then.
        """
        statements = self._statements
        if self.owners and not RestoreTarget.of(self.target).knows_timeout:
            statements = statements.replace(f"\n{TIMEOUT_STATEMENT}\n", "\n", 1)
        with connected(self.target) as connection:
            try:
                if self.owners:
                    with event_triggers_suspended(connection):
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
                    f"Owners and grants cannot be restored into {self.target.place}: "
                    f"{type(error).__name__}, {error.sqlstate}.",
                    "Erasures were replayed, and nothing is open to others. See the server's log, "
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
    """Return whether a comment has the mark of a closed database, and its people's own comment."""
    before, mark, after = comment.partition(CLOSED)
    if not mark or (after and not after.startswith(" ")):
        return False, comment
    return True, before + after[1:]


def opening_statements(head: bytes, entries: Sequence[Entry]) -> str:
    """Return the SQL of an archive's owners, grants, publications and subscriptions.

    The statements of owners are the lines that pg_restore leaves out with ``--no-owner``.
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
    """Return pg_restore's SQL for entries, without the owners in its comments."""
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
    """Raise UsageError when a role that the statements name does not exist on the server."""
    named = {
        role[1:-1].replace('""', '"') if role.startswith('"') else role
        for role in _ROLES.findall(statements)
    } - {"PUBLIC", "DEFAULT"}
    with connected(target) as connection:
        roles = {name for (name,) in connection.execute("SELECT rolname::text FROM pg_roles")}
    if missing := sorted(named - roles):
        raise UsageError(
            f'Restoring into {target.place}: role "{missing[0]}" does not exist.',
            "Create the role first. Owners, grants and policies of the backup refer to it.",
        )
