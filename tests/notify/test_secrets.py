"""Secrets of notifications are in the mail and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import inspect

from tests.notify.notify_fixtures import KIND, Post, notification
from tests.support.smtp import Smtp

SECRET = "K7QF-9RTW"


def reveal(keys: Sequence[str]) -> Mapping[str, str]:
    """Return the same secret for each key."""
    return dict.fromkeys(keys, SECRET)


def stored_text(post: Post) -> str:
    """Return all rows of all tables of the state database as text."""
    tables = inspect(post.state).get_table_names()
    return "".join(str(post.rows(f'SELECT t::text FROM "{table}" t')) for table in tables)


def test_mail_contains_the_secret_and_the_state_database_does_not(post: Post, server: Smtp) -> None:
    post.secrets = {KIND: reveal}
    post.queue(notification(1), notification(2, kind="partners.review"))
    assert post.deliver().sent == 1
    (mail,) = server.taken
    for kind in ("plain", "html"):
        assert mail.text(kind).count(SECRET) == 2  # once in each language
    assert SECRET not in stored_text(post)


def test_notification_waits_if_its_secret_cannot_be_computed(post: Post, server: Smtp) -> None:
    def fail(_keys: Sequence[str]) -> Mapping[str, str]:
        raise ValueError(SECRET)

    post.secrets = {KIND: fail}
    post.queue(notification(1), notification(2, kind="partners.review"))
    assert post.deliver().sent == 1
    assert post.states() == {"E1/1": "pending", "E1/2": "sent"}
    assert SECRET not in stored_text(post)
    post.secrets = {KIND: reveal}
    post.clock.on(days=1)
    assert post.deliver().sent == 1
