"""What became of all notices whose keys begin alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from include.notify.outbox import Untold, statuses, undelivered
from include.notify.status import after_all
from tests.notify.rig import KIND, THURSDAY, Post, notice

KEYS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("a\ud7ff\ue000\U0010ffff"),
    max_size=4,
)


def filled(post: Post) -> None:
    """Of an incident ten, of others some."""
    post.queue(
        *(notice(number, key=f"INC-1/a/{number}") for number in range(6)),
        *(notice(number, key=f"INC-1/b/{number}", address="") for number in range(3)),
        notice(9, key="INC-1"),
        notice(9, key="INC-10/a/1"),
        notice(9, key="inc-1/a/1"),
        notice(9, key="INC-1/a/1", kind="partners.review"),
    )
    post.rows("UPDATE notice SET state = 'sent' WHERE key IN ('INC-1/a/1', 'INC-1/a/2')"
              " RETURNING 1")  # fmt: skip
    post.rows("UPDATE notice SET state = 'in_doubt', cause = 'in_doubt' WHERE key = 'INC-1/a/3'"
              " RETURNING 1")  # fmt: skip


def test_notices_of_one_prefix_are_counted_by_state_and_cause(post: Post) -> None:
    """No other incident's, however alike its number is; no other kind's."""
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
def test_those_that_were_not_delivered_are_listed_page_by_page(post: Post, page: int) -> None:
    """Each once, by key, whatever a page holds."""
    filled(post)
    with post.state.begin() as conn:
        found = list(undelivered(conn, KIND, "INC-1/", page=page))
        waits = list(undelivered(conn, KIND, "INC-1/", states=("pending",), page=page))
    assert found == [
        Untold("INC-1/a/3", "E1", "in_doubt", "in_doubt"),
        *(Untold(f"INC-1/b/{n}", "E1", "undeliverable", "no_address") for n in range(3)),
    ]
    assert [one.key for one in waits] == ["INC-1/a/0", "INC-1/a/4", "INC-1/a/5"]


@given(prefix=KEYS, key=KEYS)
def test_what_begins_so_is_what_stands_before_the_end(prefix: str, key: str) -> None:
    """By code points, to the last of them."""
    end = after_all(prefix)
    for one in (key, prefix + key):
        assert one.startswith(prefix) is (one >= prefix and (not end or one < end))


def test_the_index_is_used_where_there_are_many(post: Post) -> None:
    """An incident of a few among those of 20,000 costs a few."""
    with post.state.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO notice (kind, key, recipient, channel, heading, line, dag_id, run_id,"
                " queued_at) SELECT :kind, 'INC-' || n % 1000 || '/a/' || n, 'E', 'mail',"
                " '{}', '{}', 'd', 'r', :at FROM generate_series(1, 20000) n"
            ),
            {"kind": KIND, "at": THURSDAY},
        )
        conn.execute(text("ANALYZE notice"))
        plan = conn.execute(
            text(
                "EXPLAIN SELECT count(*) FROM notice WHERE kind = 'training.reminder'"
                " AND key ~>=~ 'INC-7/' AND key ~<~ 'INC-70'"
            )
        )
        assert "notice_key_idx" in " ".join(plan.scalars())
        assert statuses(conn, KIND, "INC-7/") == {("pending", ""): 20}
        conn.rollback()
