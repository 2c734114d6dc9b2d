"""The tables of the state database for requests, grants and openings of extracts.

A stored request never changes: an edit is a new request, so an approval counts for exactly one
content. Database triggers refuse every change of a request and of an opening. The uploaded keys of
a request are deleted when its grant ends.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from include.state.tables import MOMENT, metadata

use_request = Table(
    "use_request",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("requester", Text, nullable=False),  # account of the employee
    Column("requested_at", MOMENT, nullable=False),
    Column("content", JSONB, nullable=False),  # include.disclosure.content.RequestContent
    Column("plan", JSONB, nullable=False),  # plan in the requester's form
    Column("sha256", Text, nullable=False),  # digest of both
)

use_request_run = Table(  # the only run that asks for the approval of a request
    "use_request_run",
    metadata,
    Column("request_id", BigInteger, ForeignKey(use_request.c.id), primary_key=True),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("attached_at", MOMENT, nullable=False),
    UniqueConstraint("dag_id", "run_id"),
)

use_request_key = Table(
    "use_request_key",
    metadata,
    Column("request_id", BigInteger, ForeignKey(use_request.c.id), primary_key=True),
    Column("key", Text, primary_key=True),
)

use_grant = Table(
    "use_grant",
    metadata,
    Column("request_id", BigInteger, ForeignKey(use_request.c.id), primary_key=True),
    Column("sha256", Text, nullable=False),  # digest of the approved content
    Column("approvals", JSONB, nullable=False),  # numbers of the approval requests
    Column("department", Text, nullable=False),  # of the requester at the approval
    Column("approved_at", MOMENT, nullable=False),
    Column("expires_at", MOMENT, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Text, nullable=False, server_default=text("''")),
    Column("object_key", Text, nullable=False, server_default=text("''")),
    Column("store", Text, nullable=False, server_default=text("''")),  # where the object is
    Column("delivered_at", MOMENT),
    Column("snapshot_at", MOMENT),
    Column("records", BigInteger),
    Column("size", BigInteger),
    Column("file_sha256", Text),
    Column("end_reason", Text),
    Column("ending_at", MOMENT),
    Column("ended_by", Text, nullable=False, server_default=text("''")),
    Column("ended_at", MOMENT),
    Column("confirmed_at", MOMENT),  # the requester confirmed that local copies are deleted
    Column("confirmed_by", Text),
    CheckConstraint(
        "state IN ('approved', 'delivering', 'delivered', 'ending', 'ended')", name="state"
    ),
    CheckConstraint("expires_at > approved_at", name="expires_at"),
    CheckConstraint(
        "num_nulls(delivered_at, snapshot_at, records, size, file_sha256) IN (0, 5)",
        name="delivered",
    ),
    CheckConstraint("state <> 'delivered' OR delivered_at IS NOT NULL", name="delivered_state"),
    CheckConstraint("num_nulls(end_reason, ending_at) IN (0, 2)", name="ending"),
    CheckConstraint(
        "(state IN ('ending', 'ended')) = (ending_at IS NOT NULL)", name="ending_state"
    ),
    CheckConstraint("(state = 'ended') = (ended_at IS NOT NULL)", name="ended"),
    CheckConstraint("num_nulls(confirmed_at, confirmed_by) IN (0, 2)", name="confirmed"),
    Index("use_grant_live_idx", "expires_at", postgresql_where=text("state <> 'ended'")),
)

use_opening = Table(  # a row before the first byte of each download
    "use_opening",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("request_id", BigInteger, ForeignKey(use_grant.c.request_id), nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("opened_at", MOMENT, nullable=False),
    Column("channel", Text, nullable=False),
    CheckConstraint("channel IN ('page', 'command')", name="channel"),
    Index("use_opening_request_idx", "request_id"),
)

use_attempt = Table(  # each object that a delivery was going to write
    "use_attempt",
    metadata,
    Column("object_key", Text, primary_key=True),
    Column("request_id", BigInteger, ForeignKey(use_grant.c.request_id), nullable=False),
    Column("begun_at", MOMENT, nullable=False),
    Index("use_attempt_request_idx", "request_id"),
)

# Keyed HMAC of each data subject in an extract. Without a foreign key: a million rows are written
# while other transactions may end the grant, and a foreign key would lock it.
use_subject = Table(
    "use_subject",
    metadata,
    Column("request_id", BigInteger, primary_key=True),
    Column("attempt", Text, primary_key=True),
    Column("key_hmac", LargeBinary, primary_key=True),
    Index("use_subject_key_idx", "key_hmac"),
)
