"""The text of a notice: its digest identifies it, and storage does not change the digest."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from include.messages import Message, verbatim
from include.notify.outbox import store_text
from include.notify.texts import NoticeText, canonical_text, load_texts, text_digest
from tests.notify.notify_fixtures import Post, notice_text, notification

VALUES = st.one_of(
    st.text(max_size=8),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dates(min_value=date(2000, 1, 1)),
    st.datetimes(
        min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis adds the timezone
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=8))]),
    ),
)
MESSAGES = st.builds(
    Message, text=st.text(max_size=20), values=st.dictionaries(st.sampled_from("abc"), VALUES)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=MESSAGES, closing=st.none() | MESSAGES)
def test_sha256_of_notice_text_is_unchanged_after_storage(
    state: Engine, words: Message, closing: Message | None
) -> None:
    original = notice_text(opening=words, closing=closing)
    again = NoticeText.model_validate_json(original.model_dump_json())
    assert text_digest(again) == text_digest(original)
    with state.begin() as conn:
        sha256 = store_text(conn, original)
        assert load_texts(conn, [sha256]) == {sha256: canonical_text(original)}
        conn.rollback()


def test_same_notice_text_is_stored_once(post: Post) -> None:
    assert post.keep(notice_text()) == post.keep(notice_text()) == text_digest(notice_text())
    assert post.keep(notice_text("Else.")) != text_digest(notice_text())
    assert post.rows("SELECT count(*) FROM notification_text") == [(2,)]
    with post.state.begin() as conn:
        assert load_texts(conn, []) == {}


def test_line_breaks_become_line_feeds_and_characters_that_cannot_be_stored_are_escaped(
    post: Post,
) -> None:
    hostile = "a\r\nb\rc\x00\ud800"
    sha256 = post.keep(notice_text(opening=verbatim(hostile)))
    ((stored_text,),) = post.rows(
        "SELECT content->'opening'->'values'->>'words' FROM notification_text"
    )
    assert stored_text == "a\nb\nc\\u0000\\ud800"
    with post.state.begin() as conn:
        assert sha256 in load_texts(conn, [sha256])


def test_stored_notice_text_is_a_json_object_with_the_expected_keys(post: Post) -> None:
    post.keep(notice_text())
    ((stored_text,),) = post.rows("SELECT content::text FROM notification_text")
    assert set(json.loads(stored_text)) == {"heading", "opening", "parts", "closing", "contact"}


def test_text_digest_raises_value_error_for_notice_text_with_the_number_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        text_digest(notice_text(opening=Message(text="{a}", values={"a": float("nan")})))


def test_text_of_queued_notice_cannot_be_deleted(post: Post) -> None:
    post.queue(notification(1, text=post.keep(notice_text())))
    with pytest.raises(Exception, match="notification_text"), post.state.begin() as conn:
        conn.execute(text("DELETE FROM notification_text"))
