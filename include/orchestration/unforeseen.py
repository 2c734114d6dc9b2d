"""Describe unexpected errors without their messages.

Messages of PostgreSQL and of libraries may quote values of rows, so they must not reach a log. The
kind of the error, its SQLSTATE and its stack are enough to find the cause.
"""

from __future__ import annotations

import traceback


def value_free(error: BaseException) -> str:
    """Describe an error and its causes by kind, SQLSTATE and lines of code, innermost last."""
    lines = []
    for one in _chain(error):
        code = getattr(one, "sqlstate", None)
        lines.append(type(one).__qualname__ + (f" (SQLSTATE {code})" if code else ""))
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(one.__traceback__)
        ]
    return "\n".join(lines)


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found
