"""The text of a letter: named by its digest, the same before and after the state database."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from include.messages import Message, verbatim
from include.notify.outbox import keep_text
from include.notify.texts import LetterText, content, digest, kept_texts
from tests.notify.rig import Post, letter, notice

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
def test_a_text_has_one_digest_whatever_becomes_of_it(
    state: Engine, words: Message, closing: Message | None
) -> None:
    """Through JSON and through JSONB, which writes numbers its own way."""
    made = letter(opening=words, closing=closing)
    again = LetterText.model_validate_json(made.model_dump_json())
    assert digest(again) == digest(made)
    with state.begin() as conn:
        sha256 = keep_text(conn, made)
        assert kept_texts(conn, [sha256]) == {sha256: content(made)}
        conn.rollback()


def test_the_same_text_is_kept_once(post: Post) -> None:
    """Another is another one."""
    assert post.keep(letter()) == post.keep(letter()) == digest(letter())
    assert post.keep(letter("Else.")) != digest(letter())
    assert post.rows("SELECT count(*) FROM notice_text") == [(2,)]
    with post.state.begin() as conn:
        assert kept_texts(conn, []) == {}


def test_line_ends_are_those_of_a_letter_and_hostile_words_are_stored(post: Post) -> None:
    """As a browser's form has them; zeros and half characters are written out."""
    hostile = "a\r\nb\rc\x00\ud800"
    sha256 = post.keep(letter(opening=verbatim(hostile)))
    ((kept,),) = post.rows("SELECT content->'opening'->'values'->>'words' FROM notice_text")
    assert kept == "a\nb\nc\\u0000\\ud800"
    with post.state.begin() as conn:
        assert sha256 in kept_texts(conn, [sha256])


def test_a_text_is_readable_for_who_looks_into_the_database(post: Post) -> None:
    """As JSON with its parts."""
    post.keep(letter())
    ((kept,),) = post.rows("SELECT content::text FROM notice_text")
    assert set(json.loads(kept)) == {"heading", "opening", "parts", "closing", "contact"}


def test_a_figure_that_is_none_is_refused() -> None:
    """No JSON has it."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(letter(opening=Message(text="{a}", values={"a": float("nan")})))


def test_a_text_that_is_referred_to_cannot_go(post: Post) -> None:
    """What was told stays to be read."""
    post.queue(notice(1, text=post.keep(letter())))
    with pytest.raises(Exception, match="notice_text"), post.state.begin() as conn:
        conn.execute(text("DELETE FROM notice_text"))
