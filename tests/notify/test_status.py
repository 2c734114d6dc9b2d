"""The delivery status of all notifications whose keys have a common prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from include.notify.outbox import UndeliveredNotification, statuses, undelivered
from include.notify.status import end_of_prefix
from tests.notify.notify_fixtures import KIND, THURSDAY, Post, notification

KEYS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("a\ud7ff\ue000\U0010ffff"),
    max_size=4,
)


def filled(post: Post) -> None:
    """Queue ten notifications of incident INC-1, and some of other incidents and kinds."""
    post.queue(
        *(notification(number, key=f"INC-1/a/{number}") for number in range(6)),
        *(notification(number, key=f"INC-1/b/{number}", address="") for number in range(3)),
        notification(9, key="INC-1"),
        notification(9, key="INC-10/a/1"),
        notification(9, key="inc-1/a/1"),
        notification(9, key="INC-1/a/1", kind="partners.review"),
    )
    post.rows("UPDATE notification SET state = 'sent' WHERE key IN ('INC-1/a/1', 'INC-1/a/2')"
              " RETURNING 1")  # fmt: skip
    post.rows(
        "UPDATE notification SET state = 'in_doubt', cause = 'in_doubt'"
        " WHERE key = 'INC-1/a/3' RETURNING 1"
    )


def test_statuses_returns_number_of_notifications_by_state_and_cause(post: Post) -> None:
    filled(post)
    with post.state.begin() as conn:
        assert statuses(conn, KIND, "INC-1/") == {
            ("in_doubt", "in_doubt"): 1,
            ("pending", ""): 3,
            ("sent", ""): 2,
            ("undeliverable", "no_address"): 3,
        }
        assert statuses(conn, KIND, "INC-2/") == {}
        assert sum(statuses(conn, KIND, "").values()) == 12


@pytest.mark.parametrize("page", [1, 2, 3, 4, 5, 100])
def test_undelivered_returns_the_same_notifications_for_every_page_size(
    post: Post, page: int
) -> None:
    filled(post)
    with post.state.begin() as conn:
        undelivered_notices = list(undelivered(conn, KIND, "INC-1/", page=page))
        waits = list(undelivered(conn, KIND, "INC-1/", states=("pending",), page=page))
    assert undelivered_notices == [
        UndeliveredNotification("INC-1/a/3", "E1", "in_doubt", "in_doubt"),
        *(
            UndeliveredNotification(f"INC-1/b/{n}", "E1", "undeliverable", "no_address")
            for n in range(3)
        ),
    ]
    assert [wait.key for wait in waits] == ["INC-1/a/0", "INC-1/a/4", "INC-1/a/5"]


@given(prefix=KEYS, key=KEYS)
def test_keys_between_prefix_and_end_of_prefix_are_exactly_the_keys_with_that_prefix(
    prefix: str, key: str
) -> None:
    end = end_of_prefix(prefix)
    for text_compared in (key, prefix + key):
        assert text_compared.startswith(prefix) is (
            text_compared >= prefix and (not end or text_compared < end)
        )


def test_query_for_notifications_by_key_prefix_uses_the_index(post: Post) -> None:
    with post.state.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO notification"
                " (kind, key, recipient, channel, heading, line, dag_id, run_id,"
                " queued_at) SELECT :kind, 'INC-' || n % 1000 || '/a/' || n, 'E', 'mail',"
                " '{}', '{}', 'd', 'r', :at FROM generate_series(1, 20000) n"
            ),
            {"kind": KIND, "at": THURSDAY},
        )
        conn.execute(text("ANALYZE notification"))
        plan = conn.execute(
            text(
                "EXPLAIN SELECT count(*) FROM notification WHERE kind = 'training.reminder'"
                " AND key ~>=~ 'INC-7/' AND key ~<~ 'INC-70'"
            )
        )
        assert "notification_key_idx" in " ".join(plan.scalars())
        assert statuses(conn, KIND, "INC-7/") == {("pending", ""): 20}
        conn.rollback()
