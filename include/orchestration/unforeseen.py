"""Errors that nobody foresaw: where they happened, without what they say.

PostgreSQL and libraries quote the values that they stumble over, so their words may not reach a
log. The kind of error, its SQLSTATE and the lines of code it went through are enough to find it.
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
