"""One line about a failed pg_restore that holds no row's value."""

from __future__ import annotations

import re

from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError

PROGRAM_ERROR = re.compile(r"^pg_restore: (?:\[[^\]]*\] )?error: ")
SERVER_ERROR = re.compile(r"(?:ERROR|FATAL):\s+")
# The server puts a name after such a word, and a value after a colon or nothing.
NAME_FOLLOWS = re.compile(
    r"\b(column|relation|table|index|constraint|sequence|view|trigger|rule|policy|role|extension|"
    r"type|domain|schema|function|operator|collation|encoding|parameter|tablespace|database|"
    r"server|language|file) $"
)
VALUE_TAIL = re.compile(r'^[^"]*" (is out of range for type [a-z ]+)$')
RAISED_BY_FUNCTION = re.compile(r"^(CONTEXT:\s+)?(PL/\w+|SQL) function ", re.MULTILINE)


def explain(output: str, target: DatabaseAddress) -> ServiceError | UsageError:
    """Turn pg_restore's output into one line with what to do.

    The server repeats whole rows in DETAIL and CONTEXT and quotes values in its messages, and
    functions of the database raise whatever they like. Only the primary message is kept, up to its
    first quoted word that names no object; of a message that a function raised nothing is kept.

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
    if "No space left on device" in text:
        return ServiceError(
            f"The disk of the server that holds {target.place} is full.",
            "The target is incomplete: drop it. Free space there, then restore again.",
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
    if server := SERVER_ERROR.search(text):
        text = text[server.end() :]
        if RAISED_BY_FUNCTION.search(output):
            return "a function of the database raised an error; its server's log has the text"
    return _up_to_a_value(text).rstrip(".: ")


def _up_to_a_value(text: str) -> str:
    # Bytes that fit no encoding are told after a colon, and some extensions quote with apostrophes.
    text = re.split(r": 0x|(?<!\w)'", text)[0]
    position = 0
    while (start := text.find('"', position)) >= 0:
        end = text.find('"', start + 1)
        if end < 0 or not NAME_FOLLOWS.search(text[:start]):
            tail = VALUE_TAIL.match(text[start + 1 :])
            return text[:start] + '"…"' + (f" {tail.group(1)}" if tail else "")
        position = end + 1
    return text
