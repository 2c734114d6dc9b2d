"""Recognize error messages of PostgreSQL that contain no value of a row.

A function of an application can raise any text. Only the CONTEXT line says that a function raised
a message, and it is in the server's language. So a message is kept only if it has the English words
of one of PostgreSQL's own messages.
"""

from __future__ import annotations

import re

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

# Whole messages.
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
# A value follows these, after a colon or in quotes.
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
    """Return a server's message without the value that it holds, or None if it is unknown.

    Args:
        text: first line of a message, without severity.
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
