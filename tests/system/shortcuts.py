"""Shortcuts that make runs fast: no charts, no PDF files, reused keys and connections."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from unittest.mock import patch

from markupsafe import Markup
from sqlalchemy import Engine

import include.reports.render as rendering
from include.backup import refusals
from include.encryption import recipients
from include.reports.html import View
from include.state import connect
from tests.support.databases import pooled

read_key = functools.cache(recipients.opening_key_from_pem)
"""OpenSSL checks the primes of an RSA key whenever it reads one."""


@functools.cache
def stranger() -> tuple[bytes, bytes]:
    """Return a key pair that decrypts nothing. Drills try to decrypt a dump with it."""
    now = datetime.now(UTC)  # noqa: TID251 - a certificate follows the real clock
    return recipients.new_pair("stranger", now, bits=refusals.WRONG_KEY_BITS)


@contextmanager
def shortcuts() -> Iterator[None]:
    """Render reports without charts and PDF files, and reuse RSA keys and connections.

    A connection to the state database loses its settings, locks and temporary tables before it is
    used again.
    """
    render, new_engine = rendering.render_all, connect.engine
    engines: list[Engine] = []

    def engine(conninfo: str, schema: str = "") -> Engine:
        if schema:
            return new_engine(conninfo, schema)
        engines.append(pooled(conninfo, checked=True))
        return engines[-1]

    replaced = (
        (connect, "engine", engine),
        (rendering, "render_all", lambda report, **_of: render(report, pdf=False)),
        (View, "chart", lambda _view, _chart, _identifier: Markup()),
        (recipients, "opening_key_from_pem", read_key),
        (refusals, "opening_key_from_pem", read_key),
        (refusals, "new_pair", lambda *_name_and_moment, **_size: stranger()),
    )
    with ExitStack() as stack:
        for target, name, shortcut in replaced:
            stack.enter_context(patch.object(target, name, shortcut))
        yield
        for kept in engines:
            kept.dispose()
