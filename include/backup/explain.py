"""Explain why pg_restore failed, in one line that contains no value of a row.

A function of the database can raise an error with any text, including values of rows. Only the
CONTEXT line of the server's message shows that a function raised the error, and this line is in the
language of the server. Therefore, a message is kept only if it has the English words of one of
PostgreSQL's own messages.

The module also detects CHECK constraints that cannot be restored. pg_dump writes CHECK constraints
into the definition of their table, so each row is checked when it is loaded. If a constraint calls
a function that reads other rows, these rows may not be loaded yet. PostgreSQL does not support such
constraints (see ``ddl-constraints`` in its manual), and no option of pg_restore checks them later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.erasure.restored_copy import FIRST_OWN_OBJECT
from include.services.database import DatabaseAddress, connected
from include.services.errors import ParcelSealError, ServiceError, UsageError

_NAME = r'"[^"]*"'
_KIND = (
    r"(?:column|relation|table|index|constraint|sequence|view|materialized view|trigger|rule|"
    r"policy|role|extension|type|domain|schema|function|procedure|aggregate|operator|collation|"
    r"encoding|tablespace|database|server|foreign-data wrapper|language|access method|cast|"
    r"operator class|operator family|event trigger|publication|subscription|large object)"
)
# An identifier as PostgreSQL prints it without quotes of its own, with the schema before a dot.
_BARE = r"[\w.$]+"
_OF = rf" of {_KIND} {_NAME}"

# Patterns that match a complete message.
_WHOLE = re.compile(
    "|".join(
        [
            rf"{_KIND} {_NAME}(?:{_OF})? does not exist",
            rf"{_KIND} {_NAME}(?: for {_KIND} {_NAME})? already exists",
            rf"{_KIND} {_NAME} for encoding {_NAME} does not exist",
            rf"{_KIND} {_NAME} for {_KIND} {_NAME} does not exist",
            rf"(?:function|procedure|aggregate) {_BARE}\([^:']*\) does not exist",
            rf"extension {_NAME} is not available",
            rf"extension {_NAME} has no installation script nor update path for version {_NAME}",
            rf"unrecognized (?:configuration )?parameter {_NAME}",
            rf"permission denied for {_KIND} {_BARE}",
            rf"permission denied to (?:create|alter) {_KIND}(?: {_NAME})?",
            rf"permission denied to set (?:parameter|role) {_NAME}",
            rf"permission denied: {_NAME} is a system (?:trigger|catalog)",
            rf"must be owner of {_KIND} {_BARE}",
            rf"must be able to SET ROLE {_NAME}",
            rf"must be member of role {_NAME}",
            r"must be superuser to [a-z ]+",
            rf"could not create unique index {_NAME}",
            rf"duplicate key value violates unique constraint {_NAME}",
            rf"conflicting key value violates exclusion constraint {_NAME}",
            rf"could not create exclusion constraint {_NAME}",
            rf"null value in column {_NAME}(?:{_OF})? violates not-null constraint",
            rf"column {_NAME}(?:{_OF})? contains null values",
            rf"new row for relation {_NAME} violates (?:check|partition) constraint(?: {_NAME})?",
            rf"new row violates row-level security policy for table {_NAME}",
            rf"query would be affected by row-level security policy for table {_NAME}",
            rf"(?:insert or update|update or delete) on table {_NAME} violates foreign key "
            rf"constraint {_NAME}(?: on table {_NAME})?",
            rf"check constraint {_NAME} of relation {_NAME} is violated by some row",
            rf"value for domain {_BARE} violates check constraint {_NAME}",
            rf"domain {_BARE} does not allow null values",
            rf"no partition of relation {_NAME} found for row",
            r"value too long for type [a-z ]+(?:\(\d+\))?",
            rf"there is no unique constraint matching given keys for referenced table {_NAME}",
            rf"foreign key constraint {_NAME} cannot be implemented",
            r"numeric field overflow",
            r"unsupported XML feature",
            rf"missing data for column {_NAME}",
            r"extra data after last expected column",
            rf"role {_NAME} is not permitted to log in",
            r'could not access file "\$libdir/[\w.+-]+": No such file or directory',
            rf"could not (?:extend|write to|create|open) file {_NAME}: No space left on device",
            r"canceling statement due to (?:statement timeout|lock timeout|user request)",
            r"terminating connection due to [a-z -]+",
            r"the database system is [a-z ]+",
            r"sorry, too many clients already",
            r"remaining connection slots are reserved[\w \"]*",
            r"deadlock detected",
            r"out of memory",
            r"out of shared memory",
            r"cannot execute [A-Z ]+ in a read-only transaction",
        ]
    )
)
# Patterns for the start of messages that continue with a value, after a colon or in quotes.
_BEFORE_A_VALUE = re.compile(
    "|".join(
        [
            r"invalid input syntax for type [a-z ]+",
            rf"invalid input value for enum {_BARE}",
            rf"invalid byte sequence for encoding {_NAME}",
            rf"character with byte sequence(?=.* has no equivalent in encoding {_NAME}$)",
            r"malformed (?:array|range|multirange|record) literal",
            r"date/time field value out of range",
            r"syntax error at or near",
            r"could not (?:extend|write to|create|open) file",
        ]
    )
)
_OUT_OF_RANGE = re.compile(
    r'value ".*" (is out of range for type '
    r"(?:smallint|integer|bigint|oid|real|double precision|numeric|money))"
)


def known_message(text: str) -> str | None:
    """Return a PostgreSQL message with the values of rows removed.

    Return None if this module does not know the message.

    Args:
        text: first line of the server's message, without the severity.
    """
    text = text.strip()
    if _WHOLE.fullmatch(text):
        return text
    if out_of_range := _OUT_OF_RANGE.fullmatch(text):
        return f'value "…" {out_of_range.group(1)}'
    # PostgreSQL's message ends here or goes on with a value; a function may add other words.
    start = _BEFORE_A_VALUE.match(text)
    if start and re.match(r':? ["(]|: 0x| 0x|$', text[start.end() :]):
        return start.group()
    return None


PROGRAM_ERROR = re.compile(r"^pg_restore: (?:\[[^\]]*\] )?error: ")
# libpq puts a colon and two blanks between the severity, in the server's language, and the message.
SERVER_MESSAGE = re.compile(r"^(?:(?P<doing>.*?): )?(?P<severity>[^:]*):  (?P<message>.*)$")
SEVERITIES = {"ERROR", "FATAL", "PANIC"}
# pg_restore puts a name after such a word.
NAME_FOLLOWS = re.compile(r"\b(table|index|constraint|sequence|role|schema|file) $")
_TABLE = re.compile(r'COPY failed for table (?P<name>"[^"]*"): ')
RAISED_BY_FUNCTION = re.compile(r"^(CONTEXT:\s+)?(PL/\w+|SQL) function ", re.MULTILINE)


def explain(output: str, target: DatabaseAddress) -> ServiceError | UsageError:
    """Return the error for a failed pg_restore, with a one-line message and an action.

    The message contains no values of rows. The server's own message is kept only if the server
    writes the severity in English and `known_message` recognises the text. Otherwise, only the text
    that pg_restore itself printed is kept.

    Args:
        output: first error in the output of pg_restore.
        target: database into which pg_restore loaded.
    """
    text = _without_values(output)
    if name := re.search(r'extension "([^"]*)" is not available', text):
        return UsageError(
            f"The target server lacks the extension {name.group(1)}.",
            "Install it on that server, or restore to one that has it.",
        )
    if text == "unsupported XML feature":
        table = _TABLE.match(PROGRAM_ERROR.sub("", output))
        where = f" in the table {table['name']}" if table else ""
        return UsageError(
            f"The server of {target.display_name} is built without libxml, so that it cannot "
            f"load values "
            f"of type xml{where}.",
            "The target is incomplete: drop it. Use a server that is built with libxml, as those "
            "of Debian and of cloud providers are: another target of the restore, or another "
            "server for drills in the connection drill_db.",
        )
    if text.startswith("could not access file"):
        return UsageError(
            f"pg_restore into {target.display_name} failed: {text}.",
            "The target is incomplete: drop it. Install the extension's package on that server.",
        )
    if "No space left on device" in text:
        return ServiceError(
            f"The disk of the server that holds {target.display_name} is full.",
            "The target is incomplete: drop it. Free space there, then restore again.",
        )
    if text.startswith(("invalid byte sequence for encoding", "character with byte sequence")):
        return UsageError(
            f"The target {target.display_name} cannot store bytes that are invalid in its "
            f"encoding: "
            f"{text}.",
            "Drop the target, and restore into a database with the encoding of the original: "
            "CREATE DATABASE ... TEMPLATE template0 LOCALE 'C' ENCODING '...'.",
        )
    if re.search(r'^role "[^"]*" does not exist', text):
        return UsageError(
            f"Restoring into {target.display_name}: {text}.",
            "Create the role first. Owners, grants and policies of the backup refer to it.",
        )
    return ServiceError(
        f"pg_restore into {target.display_name} failed: {text}.",
        "The target is incomplete: drop it, remove the cause, and restore again.",
    )


def _without_values(output: str) -> str:
    lines = [line for line in output.splitlines() if PROGRAM_ERROR.match(line)]
    if not lines:
        return "no message"
    text = PROGRAM_ERROR.sub("", lines[0])
    from_server = SERVER_MESSAGE.match(text)
    if from_server is None:  # of pg_restore or libpq, which run with English messages
        return _up_to_a_value(text).rstrip(".: ")
    if from_server["severity"] in SEVERITIES:
        if RAISED_BY_FUNCTION.search(output):
            return "a function of the database raised an error; its server's log has the text"
        if message := known_message(from_server["message"]):
            return message
    doing = _up_to_a_value(from_server["doing"] or "").rstrip(".: ")
    return f"{doing or 'the server reported an error'}; see the log of its server"


def _up_to_a_value(text: str) -> str:
    position = 0
    while (start := text.find('"', position)) >= 0:
        end = text.find('"', start + 1)
        if end < 0 or not NAME_FOLLOWS.search(text[:start]):
            return text[:start] + '"…"'
        position = end + 1
    return text


# A function of an extension reads no tables of the application.
_CONSTRAINTS = f"""
SELECT DISTINCT k.conname::text, n.nspname || '.' || c.relname
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
    AND d.refclassid = 'pg_proc'::regclass AND d.refobjid >= {FIRST_OWN_OBJECT}
WHERE k.contype = 'c' AND c.relname = %(table)s AND NOT EXISTS (
    SELECT FROM pg_depend e
    WHERE e.classid = 'pg_proc'::regclass AND e.objid = d.refobjid AND e.deptype = 'e')
ORDER BY 2, 1
"""  # noqa: S608 - fixed text
_LOADING = re.compile(r'COPY failed for table "(?P<table>.*)": (?P<severity>[^:]*):  (?P<text>.*)$')
_VIOLATED = re.compile(r'new row for relation ".*" violates check constraint "(?P<name>.*)"$')


class CheckRefusesRows(ServiceError):
    """The error for a load that failed because a CHECK constraint refused a row.

    The constraint calls a function, which may read rows that are not loaded yet.

    Attributes:
        constraints: constraints that may have refused the row, each as display text ``name of
            schema.table``.
    """

    def __init__(self, target: DatabaseAddress, constraints: Sequence[str]) -> None:
        self.constraints = ", ".join(constraints)
        super().__init__(
            f"The backup cannot be loaded into {target.display_name}: the CHECK constraint "
            f"{self.constraints}, which calls a function, refused a row. A backup by pg_dump is "
            "loaded table by table, so that rows or tables which the function reads may be "
            "missing.",
            'The target is incomplete: drop it. Read "CHECK constraints that read other rows" in '
            "docs/how-to/restore.md.",
        )


def check_that_refused(output: str, target: DatabaseAddress) -> CheckRefusesRows | None:
    """Return the error for a load that failed because of a CHECK constraint that calls a function.

    Return None if the load failed for another reason.

    Args:
        output: first error in the output of pg_restore.
        target: database into which pg_restore loaded. The function reads its CHECK constraints.
    """
    loading = _LOADING.match(PROGRAM_ERROR.sub("", output.partition("\n")[0]))
    if loading is None:
        return None
    violated = _VIOLATED.match(loading["text"])
    # Another error in English comes from a constraint only if its function raised the error.
    if loading["severity"] == "ERROR" and not violated and not RAISED_BY_FUNCTION.search(output):
        return None
    try:
        with connected(target) as connection:
            rows = connection.execute(_CONSTRAINTS, {"table": loading["table"]}).fetchall()
    except ParcelSealError:  # the caller reports the failed load
        return None
    names = [
        f"{name} of {table}" for name, table in rows if violated is None or violated["name"] == name
    ]
    return CheckRefusesRows(target, names) if names else None
