"""One line about a failed pg_restore that holds no row's value."""

from __future__ import annotations

import re

from include.backup.known_messages import known_message
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError

PROGRAM_ERROR = re.compile(r"^pg_restore: (?:\[[^\]]*\] )?error: ")
# libpq puts a colon and two blanks between the severity, in the server's language, and the message.
SERVER_MESSAGE = re.compile(r"^(?:(?P<doing>.*?): )?(?P<severity>[^:]*):  (?P<message>.*)$")
SEVERITIES = {"ERROR", "FATAL", "PANIC"}
# pg_restore puts a name after such a word.
NAME_FOLLOWS = re.compile(r"\b(table|index|constraint|sequence|role|schema|file) $")
_TABLE = re.compile(r'COPY failed for table (?P<name>"[^"]*"): ')
RAISED_BY_FUNCTION = re.compile(r"^(CONTEXT:\s+)?(PL/\w+|SQL) function ", re.MULTILINE)


def explain(output: str, target: DatabaseAddress) -> ServiceError | UsageError:
    """Turn pg_restore's output into one line with what to do.

    The server repeats whole rows in DETAIL and CONTEXT and quotes values in its messages, and
    functions of the database raise any text. Its message is kept only where the severity is in
    English and `known_message` knows it; otherwise only the words of pg_restore are kept.

    Args:
        output: of pg_restore, its first error.
        target: where it loaded.
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
            f"The server of {target.place} is built without libxml, so that it cannot load values "
            f"of type xml{where}.",
            "The target is incomplete: drop it. Use a server that is built with libxml, as those "
            "of Debian and of cloud providers are: another target of the restore, or another "
            "server for drills in the connection drill_db.",
        )
    if text.startswith("could not access file"):
        return UsageError(
            f"pg_restore into {target.place} failed: {text}.",
            "The target is incomplete: drop it. Install the extension's package on that server.",
        )
    if "No space left on device" in text:
        return ServiceError(
            f"The disk of the server that holds {target.place} is full.",
            "The target is incomplete: drop it. Free space there, then restore again.",
        )
    if text.startswith(("invalid byte sequence for encoding", "character with byte sequence")):
        return UsageError(
            f"The target {target.place} cannot store bytes that are invalid in its encoding: "
            f"{text}.",
            "Drop the target, and restore into a database with the encoding of the original: "
            "CREATE DATABASE ... TEMPLATE template0 LOCALE 'C' ENCODING '...'.",
        )
    if re.search(r'^role "[^"]*" does not exist', text):
        return UsageError(
            f"Restoring into {target.place}: {text}.",
            "Create the role first. Owners, grants and policies of the backup refer to it.",
        )
    return ServiceError(
        f"pg_restore into {target.place} failed: {text}.",
        "The target is incomplete: drop it, see to the cause, restore again.",
    )


def _without_values(output: str) -> str:
    lines = [line for line in output.splitlines() if PROGRAM_ERROR.match(line)]
    if not lines:
        return "no message"
    text = PROGRAM_ERROR.sub("", lines[0])
    from_server = SERVER_MESSAGE.match(text)
    if from_server is None:  # words of pg_restore or libpq, which speak English to us
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
