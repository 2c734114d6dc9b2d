"""Describe unexpected errors without their messages.

Messages of PostgreSQL and of libraries may quote values of records, so they must not reach a log.
The type of the error, its SQLSTATE and its stack are enough to find the cause.
"""

from __future__ import annotations

import traceback


def redact_traceback(error: BaseException) -> str:
    """Return the traceback of an error and of its causes, without the messages of these errors.

    For each error, the text has the type, the SQLSTATE and the lines of code, innermost last. The
    error comes first, its causes after it.
    """
    lines = []
    for exception in _chain(error):
        code = getattr(exception, "sqlstate", None)
        lines.append(type(exception).__qualname__ + (f" (SQLSTATE {code})" if code else ""))
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(exception.__traceback__)
        ]
    return "\n".join(lines)


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    exception: BaseException | None = error
    while exception is not None and exception not in chain:
        chain.append(exception)
        exception = exception.__cause__ or exception.__context__
    return chain
