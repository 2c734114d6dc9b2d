"""The tables of the state database, for queries in SQLAlchemy.

A change of a table needs a migration; a test compares the tables with the migrated schema. All
times are timezone-aware. No column contains a customer's value: a keyed HMAC identifies a record.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

MOMENT = DateTime(timezone=True)
OUTCOMES = "outcome IN ('pass', 'attention', 'fail')"

evidence_ledger = Table(
    "evidence_ledger",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # no gaps, under a lock
    Column("bundle", Text, nullable=False, unique=True),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("controls", ARRAY(Text), nullable=False),
    Column("started_at", MOMENT, nullable=False),
    Column("sealed_at", MOMENT, nullable=False),
    Column("sums_sha256", Text, nullable=False),
    Column("previous_sums_sha256", Text, nullable=False),  # empty for the first bundle
    Column("key_fingerprint", Text, nullable=False),
    Column("row_signature", LargeBinary, nullable=False),
    UniqueConstraint("dag_id", "run_id"),
    CheckConstraint(OUTCOMES, name="outcome"),
    Index("evidence_ledger_controls_idx", "controls", postgresql_using="gin"),
    Index(
        "evidence_ledger_pages_idx", "dag_id", "seq", postgresql_include=["outcome", "sealed_at"]
    ),
)

# The result of each control in each bundle, for the history on the pages. It is an index, not
# evidence: `verify` compares it with the bundles. `include.evidence.control_index` describes it.
evidence_control = Table(
    "evidence_control",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),  # in the order of commits
    Column("seq", BigInteger, nullable=False),  # of the bundle in the ledger
    Column("control", Text, nullable=False),
    Column("clause", Text, nullable=False),  # as sealed
    Column("state", Text, nullable=False),  # as sealed
    Column("value", Float),  # null: not measured
    Column("finished_at", MOMENT, nullable=False),
    UniqueConstraint("control", "seq"),
    CheckConstraint("state IN ('held', 'not_held', 'not_shown')", name="state"),
    Index("evidence_control_seq_idx", "seq"),
)

policy_control = Table(  # when a seal first had a policy pack with the control
    "policy_control",
    metadata,
    Column("control", Text, primary_key=True),
    Column("known_since", MOMENT, nullable=False),
)

evidence_intent = Table(  # bundles that a seal began to write; a killed seal leaves its row here
    "evidence_intent",
    metadata,
    Column("bundle", Text, primary_key=True),
    Column("started_at", MOMENT, nullable=False),
    # Set when the ledger has the bundle, until the store has the signature.
    Column("signature", LargeBinary),
)

evidence_checkpoint = Table(
    "evidence_checkpoint",
    metadata,
    Column("up_to_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("bundle", Text, nullable=False),
    Column("sums_sha256", Text, nullable=False),
    Column("signed_at", MOMENT, nullable=False),
    Column("key_fingerprint", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

run_step = Table(
    "run_step",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("part", Text, primary_key=True),
    Column("recorded_at", MOMENT, nullable=False),
    Column("record", JSONB, nullable=False),
)

run_artifact = Table(
    "run_artifact",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

legal_hold = Table(
    "legal_hold",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("case_ref", Text, nullable=False),
    Column("placed_at", MOMENT, nullable=False),
    Column("review_on", Date, nullable=False),
    Column("released_at", MOMENT),
    Column("released_by", Text),
    Column("release_reason", Text),
    CheckConstraint(
        "kind IN ('subject', 'waybill', 'class', 'case', 'restore_point', 'database')", name="kind"
    ),
    CheckConstraint(
        "num_nulls(released_at, released_by, release_reason) IN (0, 3)", name="release"
    ),
    Index("legal_hold_kind_value_idx", "kind", "value"),
)

# The records that a transaction of a mapped database erased. The row is entered before that
# transaction commits. The transaction's number later shows whether it committed.
erasure_batch = Table(
    "erasure_batch",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("database", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("record_class", Text, nullable=False),
    Column("rule", Text, nullable=False),  # SHA-256 of the rule, or another cause of the erasure
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("erased_at", MOMENT, nullable=False),
    Column("transaction", Text),  # 64-bit number; null if it was not recorded
    Column("server", Text),  # that gave the number: system identifier, timeline, database
    Column("records", BigInteger, nullable=False),  # erased records, even if listed before
    Column("settled_at", MOMENT),  # null: not yet known whether the transaction committed
    Column("key_types", Text),  # types of the records' primary key; null: unknown
    Column("entries", BigInteger),  # entries that the settlement added; keys listed before get none
    Column("entries_sha256", LargeBinary),  # digest of these entries, see `include.erasure.ledger`
    CheckConstraint("action IN ('delete', 'mask')", name="action"),
    CheckConstraint("settled_at IS NULL OR entries_sha256 IS NOT NULL", name="digested"),
    Index("erasure_batch_database_idx", "database", "collection"),
    Index("erasure_batch_run_idx", "dag_id", "run_id"),
    Index("erasure_batch_open_idx", "database", postgresql_where=text("settled_at IS NULL")),
)

erasure = Table(  # a row for each record; the HMAC covers database and collection too
    "erasure",
    metadata,
    Column("key_hmac", LargeBinary, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("action", Text, primary_key=True),
    Column("batch_id", BigInteger, ForeignKey(erasure_batch.c.id), nullable=False),
    CheckConstraint("action IN ('delete', 'mask')", name="action"),
    Index("erasure_batch_id_idx", "batch_id"),
)

erasure_key = Table(  # identifies the keys; the connection has the secrets
    "erasure_key",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("check", LargeBinary, nullable=False),  # HMAC of a fixed text
    Column("first_used_at", MOMENT, nullable=False),
)

erasure_request = Table(  # of data subjects
    "erasure_request",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("database", Text, nullable=False),
    Column("subject", Text, nullable=False),  # key of the data subject, never a name or number
    Column("reference", Text, nullable=False),  # reference of the request's file
    Column("received_on", Date, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("entered_at", MOMENT, nullable=False),
    Column("closed_at", MOMENT),
    Column("closed_by", Text),
    Column("closed_because", Text),
    Column("found_at", MOMENT),  # when a run first found a record of the subject
    Column("restricted_at", MOMENT),  # since when runs find only records that must be kept
    Column("oversized_at", MOMENT),  # when a run found too many records to store their keys
    CheckConstraint("num_nulls(closed_at, closed_by, closed_because) IN (0, 3)", name="closed"),
    CheckConstraint("due_on >= received_on", name="due"),
    Index(
        "erasure_request_open_key",
        "database",
        "subject",
        unique=True,
        postgresql_where=text("closed_at IS NULL"),
    ),
)

# Records of a data subject that runs found. The rows are deleted when the request is closed.
erasure_request_record = Table(
    "erasure_request_record",
    metadata,
    Column("request_id", BigInteger, ForeignKey(erasure_request.c.id), primary_key=True),
    Column("record_class", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # or its keyed HMAC, if the key identifies a person
    Column("found_by", Text, primary_key=True),  # SHA-256 of the expression that found the subject
    Column("collection", Text, nullable=False),
    Column("found_at", MOMENT, nullable=False),
)

# Losses of registers that a person accepted, and the registers' figures at that moment. The table
# is append-only and signed, so that no plain INSERT hides a loss.
register_loss = Table(
    "register_loss",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("accepted_at", MOMENT, nullable=False),
    Column("accepted_by", Text, nullable=False),
    Column("because", Text, nullable=False),
    Column("lost", JSONB, nullable=False),  # register -> sealed figure; unread bundles
    Column("figures", JSONB, nullable=False),  # register -> figure at that moment
    Column("key_fingerprint", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

disposition = Table(  # results of each record class in each run, for the trend
    "disposition",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("database", Text, primary_key=True),
    Column("record_class", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),  # in the order of planning
    Column("planned_at", MOMENT, nullable=False),
    Column("as_of", MOMENT, nullable=False),
    Column("plan_sha256", Text, nullable=False),
    Column("expired", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("planned", BigInteger, nullable=False),  # to delete or to mask
    Column("done", BigInteger),  # null: nothing was executed
    Column("approval_required", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("plan_sha256 ~ '^[0-9a-f]{64}$'", name="plan_sha256"),
    Index("disposition_class_idx", "database", "record_class", "number"),
)

drill = Table(
    "drill",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("database", Text, primary_key=True),
    Column("restore_point", Text, nullable=False),
    Column("drilled_at", MOMENT, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("restore_seconds", Float),  # null: the restore did not finish
    Column("rpo_seconds", Float),
    CheckConstraint(OUTCOMES, name="outcome"),
    Index("drill_database_drilled_at_idx", "database", "drilled_at"),
)

scratch_database = Table(
    "scratch_database",
    metadata,
    Column("name", Text, primary_key=True),
    Column("server", Text, nullable=False),
    Column("created_at", MOMENT, nullable=False),
    Column("dropped_at", MOMENT),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
)

restore_point_operation = Table(  # operations of runs on folders of the off-site store
    "restore_point_operation",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("store", Text, nullable=False),  # description of the store
    Column("database", Text, nullable=False),
    Column("point", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("started_at", MOMENT, nullable=False),
    Column("ended_at", MOMENT),
    Column("result", Text),
    CheckConstraint("operation IN ('publish', 'remove')", name="operation"),
    CheckConstraint("(ended_at IS NULL) = (result IS NULL)", name="result"),
    Index(
        "restore_point_operation_unfinished_idx",
        "database",
        "store",
        postgresql_where=text("ended_at IS NULL"),
    ),
)

quarantine = Table(  # records that break a rule, by key or keyed HMAC
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("database", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("part", Text),  # department or branch of the record; null if not configured
    Column("found_at", MOMENT, nullable=False),
    Column("found_dag_id", Text, nullable=False),
    Column("found_run_id", Text, nullable=False),
    Column("resolved_at", MOMENT),
    Column("resolved_dag_id", Text),
    Column("resolved_run_id", Text),
    CheckConstraint(
        "num_nulls(resolved_at, resolved_dag_id, resolved_run_id) IN (0, 3)", name="resolved"
    ),
    Index(
        "quarantine_open_key",
        "database",
        "collection",
        "rule",
        "key",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
    ),
)

# Results of each rule in each run, for the trend. Further rows store data for the next run
# (`include.quality.history`): "has begun", "all records" with the watermark, "no undeclared keys:
# ...".
quality_check = Table(
    "quality_check",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("database", Text, primary_key=True),
    Column("collection", Text, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("checked_at", MOMENT, nullable=False),
    Column("whole", Boolean, nullable=False),  # a full check, not only of changed records
    Column("rows", BigInteger),  # records of the last full check; null: not checked
    Column("broken", BigInteger),  # failing records of the collection, after this run
    Column("outcome", Text, nullable=False),
    Column("watermark", Text),  # of "all records"; null: the next run examines all of them
    Column("number", BigInteger, Identity(always=True), nullable=False),  # in the order of writing
    CheckConstraint(OUTCOMES, name="outcome"),
    Index("quality_check_collection_idx", "database", "collection", "checked_at"),
    Index("quality_check_database_idx", "database", "checked_at"),
)

approval_request = Table(
    "approval_request",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("sha256", Text, nullable=False),  # of the exact content to approve
    Column("requested_by", ARRAY(Text), nullable=False),
    Column("requested_at", MOMENT, nullable=False),
    Column("deadline", MOMENT),
    UniqueConstraint("dag_id", "run_id", "kind", "subject", "sha256"),
    CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
)

approval_decision = Table(  # at most one per request, by its primary key
    "approval_decision",
    metadata,
    Column("request_id", BigInteger, ForeignKey(approval_request.c.id), primary_key=True),
    Column("decision", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", MOMENT, nullable=False),
)

approval_refusal = Table(  # refused answers to approval requests
    "approval_refusal",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("request_id", BigInteger, ForeignKey(approval_request.c.id), nullable=False),
    Column("decision", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", MOMENT, nullable=False),
    Column("cause", Text, nullable=False),
    UniqueConstraint("request_id", "decided_by", "decided_at"),
)
