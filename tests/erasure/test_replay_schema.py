"""Tests that a replay also erases data that views and tables derived from erased records."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure import replay as module
from include.erasure.masks import Mask
from include.erasure.replay import ReplayResult, ReplayRules, replay, require_erased
from include.erasure.tables import TableName
from include.services.errors import ControlFailed, ServiceError, UsageError
from tests.erasure.test_replay import KEYS, NOW, enter_erasures

CUSTOMERS = """
CREATE TABLE customer (customer_id int PRIMARY KEY, name text);
INSERT INTO customer SELECT n, 'name ' || n FROM generate_series(1, 5) n;
"""
HISTORY = """
CREATE TABLE customer_history (customer_id int, name text);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.customer_history VALUES (OLD.customer_id, OLD.name);
    RETURN coalesce(NEW, OLD); END';
"""
TRIGGERS = """
SELECT tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger
WHERE tgname NOT LIKE 'RI_%' ORDER BY 1, 2
"""
TABLES = {name: TableName("public", name) for name in ("customer", "waybill", "t")}


@pytest.fixture
def state(ledger_state: Engine, empty_ledger: None) -> Engine:
    """A state database with an empty erasure ledger."""
    return ledger_state


def replayed(
    copy: psycopg.Connection, state: Engine, rules: ReplayRules | None = None
) -> ReplayResult:
    copy.commit()
    return replay(copy, "courier", TABLES, state, KEYS, rules or ReplayRules(), NOW)


def rows(copy: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    return copy.execute(query.encode()).fetchall()


def test_replay_refreshes_views_in_dependency_order(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The order of names is the opposite of the dependencies. An unpopulated view stays empty."""
    copy.execute(
        CUSTOMERS
        + """CREATE MATERIALIZED VIEW z_names AS SELECT customer_id, name FROM customer;
        CREATE VIEW between AS SELECT customer_id AS c, name FROM z_names;
        CREATE MATERIALIZED VIEW a_names AS SELECT c, name FROM between;
        CREATE MATERIALIZED VIEW unpopulated AS SELECT * FROM customer WITH NO DATA;"""
    )
    enter_erasures(state, {"customer": [["2"], ["4"]]})
    result = replayed(copy, state)
    assert (result.replayed, result.refreshed, result.rows_with_erased_keys) == (2, 2, {})
    for view in ("z_names", "a_names"):
        assert rows(copy, f"SELECT name FROM {view} ORDER BY 1") == [
            ("name 1",), ("name 3",), ("name 5",)
        ]  # fmt: skip
    assert rows(copy, "SELECT relispopulated FROM pg_class WHERE relname = 'unpopulated'") == [
        (False,)
    ]


def test_materialized_views_contain_masked_values_after_replay(
    copy: psycopg.Connection, state: Engine
) -> None:
    copy.execute(CUSTOMERS + "CREATE MATERIALIZED VIEW names AS SELECT name FROM customer")
    enter_erasures(state, {"customer": [["2"]]}, action="mask")
    assert replayed(copy, state, ReplayRules({"c": Mask({"name": "name"})})).remasked == 1
    assert ("name 2",) not in rows(copy, "SELECT name FROM names")


def test_replay_rolls_back_everything_if_view_refresh_fails(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The error names the view but no value."""
    copy.execute(
        CUSTOMERS
        + """CREATE FUNCTION picky(text) RETURNS text LANGUAGE plpgsql AS
            'BEGIN IF EXISTS (SELECT FROM public.customer WHERE customer_id = 2) THEN RETURN $1;
            END IF; RAISE EXCEPTION ''no %'', $1; END';
        CREATE MATERIALIZED VIEW names AS SELECT picky(name) FROM customer;"""
    )
    enter_erasures(state, {"customer": [["2"]]})
    with pytest.raises(ServiceError, match=r"view public\.names cannot be refreshed") as error:
        replayed(copy, state)
    assert "name 1" not in str(error.value)
    assert rows(copy, "SELECT count(*) FROM customer") == [(5,)]


@pytest.mark.parametrize("action", ["delete", "mask"])
def test_replay_fires_no_trigger_and_restores_trigger_states(
    copy: psycopg.Connection, state: Engine, action: str
) -> None:
    """The triggers are on tables, partitions and inheriting tables, and in every state."""
    copy.execute(
        CUSTOMERS
        + HISTORY
        + """CREATE TRIGGER by_default AFTER DELETE OR UPDATE ON customer
            FOR EACH ROW EXECUTE FUNCTION remember();
        CREATE TRIGGER always BEFORE DELETE OR UPDATE ON customer
            FOR EACH ROW EXECUTE FUNCTION remember();
        CREATE TRIGGER on_replicas AFTER DELETE OR UPDATE ON customer
            FOR EACH ROW EXECUTE FUNCTION remember();
        CREATE TRIGGER off AFTER DELETE OR UPDATE ON customer
            FOR EACH ROW EXECUTE FUNCTION remember();
        CREATE CONSTRAINT TRIGGER late AFTER DELETE OR UPDATE ON customer
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION remember();
        ALTER TABLE customer ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER on_replicas,
            DISABLE TRIGGER off;
        CREATE TABLE t (customer_id int PRIMARY KEY, name text) PARTITION BY RANGE (customer_id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (3);
        CREATE TABLE t_2 PARTITION OF t DEFAULT;
        CREATE TRIGGER whole AFTER DELETE OR UPDATE ON t
            FOR EACH ROW EXECUTE FUNCTION remember();
        CREATE TRIGGER part AFTER DELETE OR UPDATE ON t_2
            FOR EACH ROW EXECUTE FUNCTION remember();
        ALTER TABLE t_1 ENABLE ALWAYS TRIGGER whole;
        CREATE TABLE vip () INHERITS (customer);
        CREATE TRIGGER child BEFORE DELETE OR UPDATE ON vip
            FOR EACH ROW EXECUTE FUNCTION remember();
        INSERT INTO t SELECT * FROM customer; INSERT INTO vip VALUES (2, 'name 2');"""
    )
    before = rows(copy, TRIGGERS)
    erased: dict[str, Sequence[Sequence[str]]] = {"customer": [["2"]], "t": [["2"], ["4"]]}
    enter_erasures(state, erased, action=action)  # type: ignore[arg-type]  # of the parameters
    result = replayed(copy, state, ReplayRules({"c": Mask({"name": "erase"})}))
    assert result.remaining == 0
    assert rows(copy, "SELECT * FROM customer_history") == []
    assert rows(copy, TRIGGERS) == before
    assert {state for _, _, state in before} == {"O", "R", "A", "D"}


@pytest.mark.parametrize(
    "rule",
    [
        "ON DELETE TO customer DO INSTEAD NOTHING",
        "ON DELETE TO customer DO ALSO "
        "INSERT INTO customer_history VALUES (OLD.customer_id, OLD.name)",
        "ON UPDATE TO customer DO INSTEAD NOTHING",
    ],
)
def test_replay_ignores_postgresql_rewrite_rules_and_enables_them_again_afterwards(
    copy: psycopg.Connection, state: Engine, rule: str
) -> None:
    """A rule could keep or copy records during the replay.

    After the replay the rules are enabled again.
    """
    copy.execute((CUSTOMERS + HISTORY + f"CREATE RULE r AS {rule}; "
                  "CREATE RULE a AS ON INSERT TO customer DO INSTEAD NOTHING; "
                  "ALTER TABLE customer ENABLE ALWAYS RULE a").encode())  # fmt: skip
    enter_erasures(state, {"customer": [["2"]]})
    enter_erasures(state, {"customer": [["3"]]}, action="mask")
    result = replayed(copy, state, ReplayRules({"c": Mask({"name": "erase"})}))
    assert (result.replayed, result.remasked, result.remaining) == (1, 1, 0)
    assert rows(copy, "SELECT * FROM customer_history") == []
    states = "SELECT rulename::text, ev_enabled::text FROM pg_rewrite WHERE rulename IN ('r', 'a')"
    assert rows(copy, f"{states} ORDER BY 1") == [("a", "A"), ("r", "O")]


def test_replay_fires_no_event_trigger_and_leaves_its_state_unchanged(
    copy: psycopg.Connection, state: Engine
) -> None:
    """An event trigger that forbids changes of the schema would stop the replay."""
    copy.execute(
        CUSTOMERS
        + """CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''the schema is frozen''; END';
        CREATE MATERIALIZED VIEW names AS SELECT name FROM customer;
        CREATE EVENT TRIGGER frozen ON ddl_command_start EXECUTE FUNCTION forbid();
        ALTER EVENT TRIGGER frozen ENABLE ALWAYS;"""
    )
    enter_erasures(state, {"customer": [["2"]]})
    assert replayed(copy, state).refreshed == 1
    assert rows(copy, "SELECT evtenabled::text FROM pg_event_trigger") == [("A",)]


def test_replay_enforces_foreign_keys_even_if_session_replication_role_is_replica(
    copy: psycopg.Connection, state: Engine
) -> None:
    """This setting in the connection string of the copy must not create orphans."""
    copy.execute(
        CUSTOMERS
        + """CREATE TABLE waybill (id int PRIMARY KEY, customer_id int REFERENCES customer);
        INSERT INTO waybill VALUES (1, 2); SET session_replication_role = replica;"""
    )
    enter_erasures(state, {"customer": [["2"]]})
    with pytest.raises(ControlFailed, match="waybill still refers to them"):
        replayed(copy, state)
    assert rows(copy, "SELECT count(*) FROM customer") == [(5,)]


def test_replay_erases_rows_that_forced_row_security_hides(
    copy: psycopg.Connection, state: Engine
) -> None:
    """After the replay, row security applies to the owner of the table again."""
    copy.execute("DROP ROLE IF EXISTS owner_of_replay; CREATE ROLE owner_of_replay")
    try:
        copy.execute(
            """GRANT ALL ON SCHEMA public TO owner_of_replay; SET ROLE owner_of_replay;"""
            + CUSTOMERS
            + HISTORY
            + """CREATE TRIGGER r AFTER DELETE ON customer FOR EACH ROW EXECUTE FUNCTION remember();
            ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
            ALTER TABLE customer FORCE ROW LEVEL SECURITY;
            CREATE POLICY few ON customer USING (customer_id < 2);"""
        )
        enter_erasures(state, {"customer": [["2"]]})
        assert replayed(copy, state).replayed == 1
        assert rows(
            copy, "SELECT relforcerowsecurity FROM pg_class WHERE relname = 'customer'"
        ) == [(True,)]
        assert rows(copy, "SELECT count(*) FROM customer_history") == [(0,)]
    finally:
        copy.rollback()
        copy.execute("RESET ROLE; DROP OWNED BY owner_of_replay; DROP ROLE owner_of_replay")
        copy.commit()


def test_replay_fails_if_role_may_not_disable_triggers(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The triggers would write erased values into other tables."""
    copy.execute("DROP ROLE IF EXISTS writer_of_replay; CREATE ROLE writer_of_replay")
    try:
        copy.execute(
            CUSTOMERS
            + HISTORY
            + """CREATE TRIGGER r AFTER DELETE ON customer FOR EACH ROW EXECUTE FUNCTION remember();
            GRANT ALL ON ALL TABLES IN SCHEMA public TO writer_of_replay;"""
        )
        copy.commit()
        copy.execute("SET ROLE writer_of_replay")
        enter_erasures(state, {"customer": [["2"]]})
        with pytest.raises(UsageError, match="may not disable the triggers"):
            replayed(copy, state)
    finally:
        copy.rollback()
        copy.execute("RESET ROLE; DROP OWNED BY writer_of_replay; DROP ROLE writer_of_replay")
        copy.commit()


RELATIONS_WITH_KEYS = {
    "history named like the key": (
        "CREATE TABLE old (customer_id text, at date); INSERT INTO old VALUES ('2'), ('3'), ('2')",
        {"public.old": 2},
    ),
    "history of another name": (
        "CREATE TABLE log (old_customer_id int); INSERT INTO log VALUES (2)",
        {"public.log": 1},
    ),
    "partitions": (
        "CREATE TABLE log (customer_id int) PARTITION BY LIST (customer_id);"
        "CREATE TABLE log_1 PARTITION OF log DEFAULT; INSERT INTO log VALUES (2), (3)",
        {"public.log": 1},
    ),
    "JSON at any depth": (
        """CREATE TABLE audit (row jsonb); INSERT INTO audit VALUES
        ('{"new": {"customer_id": 2}}'), ('[{"customer_id": "2"}]'), ('{"customer_id": 3}'),
        ('{"id": 2}'), ('2')""",
        {"public.audit": 2},
    ),
    "plain JSON": (
        """CREATE TABLE audit (row json);
        INSERT INTO audit VALUES ('[2]'),
            ('{"customer_id": 2, "x": "\\u0000", "y": "\\\\u0000", "z": "\\ud83d"}')""",
        {"public.audit": 1},
    ),
    "names without underscore": (
        """CREATE TABLE log (customerid int); INSERT INTO log VALUES (2), (3);
        CREATE TABLE "Audit" ("CustomerId" int); INSERT INTO "Audit" VALUES (2);
        CREATE TABLE past ("oldCustomerID" int); INSERT INTO past VALUES (2);
        CREATE TABLE past_2 (oldcustomerid int); INSERT INTO past_2 VALUES (2)""",
        {"public.Audit": 1, "public.log": 1, "public.past": 1, "public.past_2": 1},
    ),
    "members of JSON without underscore": (
        """CREATE TABLE audit (row jsonb); INSERT INTO audit VALUES
        ('{"new": {"customerId": 2}}'), ('[[{"CUSTOMERID": "2"}]]'), ('{"customerId": 3}'),
        ('{"customer_Id": 2, "customerid": 2}'), ('{"customerIds": 2, "xcustomerid": 2}');
        CREATE TABLE plain (row json); INSERT INTO plain VALUES ('{"customerId": 2}')""",
        {"public.audit": 3, "public.plain": 1},
    ),
    "a name that ends like the key": (
        """CREATE TABLE stock (xcustomerid int, customerids int, "customerIdea" int);
        INSERT INTO stock VALUES (2, 2, 2)""",
        {},
    ),
    "a foreign key that is not validated": (
        """CREATE TABLE note (c int); INSERT INTO note VALUES (9), (8);
        ALTER TABLE note ADD FOREIGN KEY (c) REFERENCES customer NOT VALID""",
        {"public.note": 1},
    ),
    "another schema": (
        'CREATE SCHEMA "Ar chive"; CREATE TABLE "Ar chive"."c %" (customer_id int);'
        'INSERT INTO "Ar chive"."c %" VALUES (2)',
        {"Ar chive.c %": 1},
    ),
    "a number that is no key": (
        "CREATE TABLE stock (amount int, id int); INSERT INTO stock VALUES (2, 2)",
        {},
    ),
    "the key of another table": (
        """CREATE TABLE shop (customer_id int PRIMARY KEY); INSERT INTO shop VALUES (2);
        CREATE TABLE visit (customer_id int REFERENCES shop); INSERT INTO visit VALUES (2)""",
        {"public.shop": 1},
    ),
    "a table with a rule of its own": (
        "CREATE TABLE waybill (customer_id int); INSERT INTO waybill VALUES (2)",
        {},
    ),
}


@pytest.mark.parametrize("name", RELATIONS_WITH_KEYS)
def test_search_returns_the_number_of_rows_with_an_erased_key_for_each_relation(
    copy: psycopg.Connection, state: Engine, name: str
) -> None:
    """Keys are found even if the copy lacks the record: customer 9 was erased before the backup."""
    statements, rows_with_keys = RELATIONS_WITH_KEYS[name]
    copy.execute((CUSTOMERS + statements).encode())
    enter_erasures(state, {"customer": [["2"], ["9"]]})
    result = replayed(copy, state, ReplayRules(ruled=["customer", "waybill"]))
    assert (result.replayed, result.remaining, result.rows_with_erased_keys) == (
        1,
        0,
        rows_with_keys,
    )
    if rows_with_keys:
        with pytest.raises(ControlFailed, match=next(iter(rows_with_keys))):
            require_erased(result)


VIEWS = {
    "the key": "SELECT customer_id FROM customer",
    "under another name": "SELECT customer_id AS who FROM customer",
    "through a view": "SELECT who FROM (SELECT customer_id AS who FROM shown) s",
    "a foreign key to it": "SELECT sender AS who FROM parcel",
    "of a union, by its name": "SELECT customer_id FROM shown UNION TABLE shown",
}


@pytest.mark.parametrize("name", VIEWS)
def test_search_finds_erased_keys_in_materialized_views(
    copy: psycopg.Connection, state: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search finds keys in the columns of a view, so it detects a refresh without effect."""
    monkeypatch.setattr(module, "refresh_materialized_views", lambda _copy: 0)
    copy.execute(
        (
            CUSTOMERS
            + """CREATE VIEW shown AS SELECT customer_id FROM customer WHERE customer_id < 9;
            CREATE TABLE parcel (id int PRIMARY KEY, sender int REFERENCES customer
                ON DELETE SET NULL); INSERT INTO parcel VALUES (1, 2);"""
            + f"CREATE MATERIALIZED VIEW m AS {VIEWS[name]};"
            + "CREATE MATERIALIZED VIEW numbers AS SELECT count(*) AS n FROM customer GROUP BY name"
        ).encode()
    )
    enter_erasures(state, {"customer": [["2"], ["1"]]})
    with_two = replayed(copy, state, ReplayRules(ruled=["customer"]))
    assert with_two.rows_with_erased_keys == {"public.m": 1 if name == "a foreign key to it" else 2}


def test_search_reads_column_id_only_in_relations_whose_name_contains_the_table_name(
    copy: psycopg.Connection, state: Engine
) -> None:
    """Every table has a column ``id``, so the name of the column alone says nothing."""
    copy.execute(
        """CREATE TABLE customer (id int PRIMARY KEY, name text);
        INSERT INTO customer SELECT n, 'name' FROM generate_series(1, 3) n;
        CREATE TABLE customer_history (id int, at date); INSERT INTO customer_history VALUES (2);
        CREATE TABLE customer_log (id int GENERATED ALWAYS AS IDENTITY, customer_id int);
        INSERT INTO customer_log (customer_id) VALUES (7), (2), (3);
        CREATE TABLE branch (id int PRIMARY KEY); INSERT INTO branch VALUES (2);
        CREATE TABLE logged (table_name text, old_row jsonb);
        INSERT INTO logged VALUES ('customer', '{"id": 2}'), ('branch', '{"id": 2}');"""
    )
    enter_erasures(state, {"customer": [["2"]]})
    assert replayed(copy, state).rows_with_erased_keys == {
        "public.customer_history": 1,
        "public.customer_log": 1,
        "public.logged": 1,
    }


def test_search_result_includes_rows_with_a_single_column_of_an_erased_composite_key(
    copy: psycopg.Connection, state: Engine
) -> None:
    """A row is not counted if a remaining record has the same value in this column of its key."""
    copy.execute(
        """CREATE TABLE waybill (waybill_id int, at date, PRIMARY KEY (waybill_id, at));
        INSERT INTO waybill SELECT n, '2026-01-01' FROM generate_series(1, 4) n;
        INSERT INTO waybill VALUES (2, '2026-02-01');
        CREATE TABLE track (waybill_id int, at date); INSERT INTO track VALUES
            (1, '2026-01-01'), (1, '2026-05-05'), (4, '2026-01-01');
        CREATE TABLE label (old_waybill_id text); INSERT INTO label VALUES ('1'), ('2'), ('3');"""
    )
    enter_erasures(state, {"waybill": [["1", "2026-01-01"], ["2", "2026-01-01"]]})
    assert replayed(copy, state).rows_with_erased_keys == {"public.label": 1, "public.track": 1}
