-- The schema of the state database: tables, then what keeps registers and history unchanged.
--
-- Names carry no schema: a drill of an incident has the same tables in a schema of its own.

CREATE TABLE approval_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    sha256 text NOT NULL,
    requested_by text[] NOT NULL,
    requested_at timestamptz NOT NULL,
    deadline timestamptz,
    CONSTRAINT approval_request_sha256_check CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    UNIQUE (dag_id, run_id, kind, subject, sha256)
);

CREATE TABLE approval_decision (
    request_id bigint PRIMARY KEY REFERENCES approval_request (id),
    decision text NOT NULL,
    reason text NOT NULL,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL
);

CREATE TABLE approval_refusal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id bigint NOT NULL REFERENCES approval_request (id),
    decision text NOT NULL,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL,
    cause text NOT NULL,
    UNIQUE (request_id, decided_by, decided_at)
);

CREATE TABLE audit_commitment (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    audit text NOT NULL,
    sha256 text NOT NULL,
    bundle text NOT NULL,
    sums_sha256 text NOT NULL,
    sealed_at timestamptz NOT NULL,
    PRIMARY KEY (dag_id, run_id)
);

CREATE TABLE audit_result (
    audit text NOT NULL,
    population text NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    concluded_at timestamptz NOT NULL,
    accepted boolean NOT NULL,
    verdict jsonb NOT NULL,
    PRIMARY KEY (audit, population)
);

CREATE TABLE audit_sample (
    audit text NOT NULL,
    population text NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    frame_sha256 text NOT NULL,
    sample_sha256 text NOT NULL,
    items bigint NOT NULL,
    drawn_at timestamptz NOT NULL,
    PRIMARY KEY (audit, population)
);

CREATE TABLE audit_seed (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    seed text NOT NULL,
    source text NOT NULL,
    published_at timestamptz,
    entered_by text NOT NULL,
    entered_at timestamptz NOT NULL,
    refused text,
    UNIQUE (dag_id, run_id, entered_by, entered_at)
);
CREATE UNIQUE INDEX audit_seed_once_idx ON audit_seed (seed) WHERE (refused IS NULL);
CREATE UNIQUE INDEX audit_seed_run_idx ON audit_seed (dag_id, run_id) WHERE (refused IS NULL);

CREATE TABLE audit_workpapers (
    draw_sha256 text NOT NULL,
    stage bigint NOT NULL,
    audit text NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    issued_at timestamptz NOT NULL,
    issued jsonb NOT NULL,
    returned_at timestamptz,
    returned_by text,
    file_sha256 text,
    returned jsonb,
    PRIMARY KEY (draw_sha256, stage)
);

CREATE TABLE disposition (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    database text NOT NULL,
    record_class text NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    planned_at timestamptz NOT NULL,
    as_of timestamptz NOT NULL,
    plan_sha256 text NOT NULL,
    expired bigint NOT NULL,
    held bigint NOT NULL,
    planned bigint NOT NULL,
    done bigint,
    approval_required boolean DEFAULT false NOT NULL,
    CONSTRAINT disposition_plan_sha256_check CHECK (plan_sha256 ~ '^[0-9a-f]{64}$'),
    PRIMARY KEY (dag_id, run_id, database, record_class)
);
CREATE INDEX disposition_class_idx ON disposition (database, record_class, number);

CREATE TABLE drill (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    database text NOT NULL,
    restore_point text NOT NULL,
    drilled_at timestamptz NOT NULL,
    outcome text NOT NULL,
    restore_seconds double precision,
    rpo_seconds double precision,
    CONSTRAINT drill_outcome_check CHECK (outcome IN ('pass', 'attention', 'fail')),
    PRIMARY KEY (dag_id, run_id, database)
);
CREATE INDEX drill_database_drilled_at_idx ON drill (database, drilled_at);

CREATE TABLE erasure_batch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    database text NOT NULL,
    collection text NOT NULL,
    action text NOT NULL,
    record_class text NOT NULL,
    rule text NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    erased_at timestamptz NOT NULL,
    transaction text,
    server text,
    records bigint NOT NULL,
    settled_at timestamptz,
    key_types text,
    entries bigint,
    entries_sha256 bytea,
    CONSTRAINT erasure_batch_action_check CHECK (action IN ('delete', 'mask')),
    CONSTRAINT erasure_batch_digested_check
        CHECK ((settled_at IS NULL) OR (entries_sha256 IS NOT NULL))
);
CREATE INDEX erasure_batch_database_idx ON erasure_batch (database, collection);
CREATE INDEX erasure_batch_open_idx ON erasure_batch (database) WHERE (settled_at IS NULL);
CREATE INDEX erasure_batch_run_idx ON erasure_batch (dag_id, run_id);

CREATE TABLE erasure (
    key_hmac bytea NOT NULL,
    key_id text NOT NULL,
    action text NOT NULL,
    batch_id bigint NOT NULL REFERENCES erasure_batch (id),
    CONSTRAINT erasure_action_check CHECK (action IN ('delete', 'mask')),
    PRIMARY KEY (key_hmac, key_id, action)
);
CREATE INDEX erasure_batch_id_idx ON erasure (batch_id);

CREATE TABLE erasure_key (
    key_id text PRIMARY KEY,
    "check" bytea NOT NULL,
    first_used_at timestamptz NOT NULL
);

CREATE TABLE erasure_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    database text NOT NULL,
    subject text NOT NULL,
    reference text NOT NULL,
    received_on date NOT NULL,
    due_on date NOT NULL,
    entered_by text NOT NULL,
    entered_at timestamptz NOT NULL,
    closed_at timestamptz,
    closed_by text,
    closed_because text,
    found_at timestamptz,
    restricted_at timestamptz,
    oversized_at timestamptz,
    CONSTRAINT erasure_request_closed_check
        CHECK (num_nulls(closed_at, closed_by, closed_because) IN (0, 3)),
    CONSTRAINT erasure_request_due_check CHECK (due_on >= received_on)
);
CREATE UNIQUE INDEX erasure_request_open_key ON erasure_request (database, subject)
    WHERE (closed_at IS NULL);

CREATE TABLE erasure_request_record (
    request_id bigint NOT NULL REFERENCES erasure_request (id),
    record_class text NOT NULL,
    key text NOT NULL,
    found_by text NOT NULL,
    collection text NOT NULL,
    found_at timestamptz NOT NULL,
    PRIMARY KEY (request_id, record_class, key, found_by)
);

CREATE TABLE evidence_checkpoint (
    up_to_seq bigint PRIMARY KEY,
    bundle text NOT NULL,
    sums_sha256 text NOT NULL,
    signed_at timestamptz NOT NULL,
    key_fingerprint text NOT NULL,
    signature bytea NOT NULL
);

CREATE TABLE evidence_intent (
    bundle text PRIMARY KEY,
    started_at timestamptz NOT NULL,
    signature bytea
);

CREATE TABLE evidence_ledger (
    seq bigint PRIMARY KEY,
    bundle text NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    outcome text NOT NULL,
    controls text[] NOT NULL,
    started_at timestamptz NOT NULL,
    sealed_at timestamptz NOT NULL,
    sums_sha256 text NOT NULL,
    previous_sums_sha256 text NOT NULL,
    key_fingerprint text NOT NULL,
    row_signature bytea NOT NULL,
    CONSTRAINT evidence_ledger_outcome_check CHECK (outcome IN ('pass', 'attention', 'fail')),
    UNIQUE (bundle),
    UNIQUE (dag_id, run_id)
);
CREATE INDEX evidence_ledger_controls_idx ON evidence_ledger USING gin (controls);
CREATE INDEX evidence_ledger_pages_idx ON evidence_ledger (dag_id, seq)
    INCLUDE (outcome, sealed_at);

CREATE TABLE finding (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    reference text NOT NULL,
    description jsonb NOT NULL,
    owner text NOT NULL,
    opened_at timestamptz NOT NULL,
    due_on date NOT NULL,
    closed_at timestamptz,
    UNIQUE (kind, reference)
);
CREATE INDEX finding_open_idx ON finding (due_on) WHERE (closed_at IS NULL);

CREATE TABLE finding_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    finding_id bigint NOT NULL REFERENCES finding (id),
    kind text NOT NULL,
    by text NOT NULL,
    at timestamptz NOT NULL,
    cause text DEFAULT '' NOT NULL,
    action text DEFAULT '' NOT NULL,
    due_on date,
    CONSTRAINT finding_event_kind_check CHECK (kind IN ('answered', 'met', 'deviates', 'reminded'))
);
CREATE INDEX finding_event_finding_id_idx ON finding_event (finding_id);

CREATE TABLE incident (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number text NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    type text NOT NULL,
    what text NOT NULL,
    noticed_by text NOT NULL,
    opened_by text NOT NULL,
    opened_at timestamptz NOT NULL,
    aware_at timestamptz NOT NULL,
    began_at timestamptz,
    partner text,
    selection jsonb NOT NULL,
    fingerprint text NOT NULL,
    clocks jsonb NOT NULL,
    duplicate_of bigint REFERENCES incident (id),
    state text NOT NULL,
    grade text,
    ended_at timestamptz,
    kept jsonb,
    CONSTRAINT incident_aware_check CHECK (began_at <= aware_at),
    CONSTRAINT incident_duplicate_check CHECK ((state = 'duplicate') = (duplicate_of IS NOT NULL)),
    CONSTRAINT incident_ended_check
        CHECK ((state IN ('closed', 'cancelled')) = (ended_at IS NOT NULL)),
    CONSTRAINT incident_state_check CHECK (state IN ('open', 'closed', 'cancelled', 'duplicate')),
    UNIQUE (dag_id, run_id),
    UNIQUE (number)
);
CREATE INDEX incident_fingerprint_idx ON incident (fingerprint);

CREATE TABLE incident_entry (
    incident_id bigint NOT NULL REFERENCES incident (id),
    place integer NOT NULL,
    kind text NOT NULL,
    recorded_at timestamptz NOT NULL,
    happened_at timestamptz NOT NULL,
    by text NOT NULL,
    once text,
    words jsonb NOT NULL,
    data jsonb NOT NULL,
    previous text NOT NULL,
    sha256 text NOT NULL,
    CONSTRAINT incident_entry_place_check CHECK (place > 0),
    PRIMARY KEY (incident_id, place),
    UNIQUE (incident_id, once)
);

CREATE TABLE incident_scope (
    incident_id bigint NOT NULL REFERENCES incident (id),
    version integer NOT NULL,
    made_at timestamptz NOT NULL,
    selection jsonb NOT NULL,
    counts jsonb NOT NULL,
    PRIMARY KEY (incident_id, version)
);

-- A row has the count that first had the person, so that no later count changes it.
CREATE TABLE incident_subject (
    incident_id bigint NOT NULL REFERENCES incident (id),
    database text NOT NULL,
    key text NOT NULL,
    version integer NOT NULL,
    PRIMARY KEY (incident_id, database, key)
);
CREATE INDEX incident_subject_version_idx ON incident_subject (incident_id, version);

CREATE TABLE legal_hold (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    value text NOT NULL,
    reason text NOT NULL,
    owner text NOT NULL,
    case_ref text NOT NULL,
    placed_at timestamptz NOT NULL,
    review_on date NOT NULL,
    released_at timestamptz,
    released_by text,
    release_reason text,
    CONSTRAINT legal_hold_kind_check
        CHECK (kind IN ('subject', 'waybill', 'class', 'case', 'restore_point', 'database')),
    CONSTRAINT legal_hold_release_check
        CHECK (num_nulls(released_at, released_by, release_reason) IN (0, 3))
);
CREATE INDEX legal_hold_kind_value_idx ON legal_hold (kind, value);

CREATE TABLE notification_message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL,
    recipient text NOT NULL,
    channel text NOT NULL,
    day date NOT NULL,
    urgent boolean NOT NULL,
    state text NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    claimed_until timestamptz,
    next_try_at timestamptz,
    reply text DEFAULT '' NOT NULL,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    copies integer DEFAULT 0 NOT NULL,
    text text DEFAULT '' NOT NULL,
    CONSTRAINT notification_message_state_check
        CHECK (state IN ('sending', 'deferred', 'sent', 'refused', 'in_doubt', 'dissolved')),
    UNIQUE (message_id)
);
CREATE UNIQUE INDEX notification_message_digest_idx ON notification_message (recipient, channel, day, text)
    WHERE ((NOT urgent) AND (state <> 'dissolved'));
CREATE INDEX notification_message_open_idx ON notification_message (id)
    WHERE (state IN ('sending', 'deferred'));

CREATE TABLE notification_optout (
    recipient text NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    entered_by text NOT NULL,
    PRIMARY KEY (recipient, kind)
);

CREATE TABLE notification_text (
    sha256 text PRIMARY KEY,
    content jsonb NOT NULL
);

CREATE TABLE notification (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    key text NOT NULL,
    recipient text NOT NULL,
    name text DEFAULT '' NOT NULL,
    address text DEFAULT '' NOT NULL,
    channel text NOT NULL,
    urgent boolean DEFAULT false NOT NULL,
    heading jsonb NOT NULL,
    line jsonb NOT NULL,
    due_on date,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    queued_at timestamptz NOT NULL,
    state text DEFAULT 'pending' NOT NULL,
    cause text DEFAULT '' NOT NULL,
    message bigint REFERENCES notification_message (id),
    settled_at timestamptz,
    text text REFERENCES notification_text (sha256),
    looked_up boolean DEFAULT false NOT NULL,
    first_deferred_at timestamptz,
    CONSTRAINT notification_letter_check CHECK ((text IS NULL) OR (channel = 'mail')),
    CONSTRAINT notification_looked_up_check
        CHECK ((NOT looked_up) OR ((text IS NOT NULL) AND (address = '') AND (name = ''))),
    CONSTRAINT notification_state_check
        CHECK (state IN ('pending', 'sent', 'withdrawn', 'undeliverable', 'in_doubt')),
    UNIQUE (kind, key)
);
CREATE INDEX notification_key_idx ON notification (kind, key text_pattern_ops);
CREATE INDEX notification_message_idx ON notification (message);
CREATE INDEX notification_pending_idx ON notification (recipient, channel) WHERE (state = 'pending');
CREATE INDEX notification_settled_at_idx ON notification (settled_at);

CREATE TABLE partner_review (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner text NOT NULL,
    opened_at timestamptz NOT NULL,
    opened_by text NOT NULL,
    reopened_because text,
    reopened_at timestamptz,
    reopened_by text,
    issued_at timestamptz,
    issued_sha256 text,
    issued jsonb,
    returned_at timestamptz,
    returned_by text,
    answered_on date,
    file_sha256 text,
    replaced jsonb DEFAULT '[]' NOT NULL,
    decided_at timestamptz,
    decided_by text,
    passed boolean,
    score text,
    reason text,
    CONSTRAINT partner_review_decided_check
        CHECK (num_nulls(decided_at, decided_by, passed, reason) IN (0, 4)),
    CONSTRAINT partner_review_issued_check
        CHECK (num_nulls(issued_at, issued_sha256, issued) IN (0, 3)),
    CONSTRAINT partner_review_passed_check CHECK ((NOT passed) OR (returned_at IS NOT NULL)),
    CONSTRAINT partner_review_reopened_check
        CHECK (num_nulls(reopened_because, reopened_at, reopened_by) IN (0, 3)),
    CONSTRAINT partner_review_returned_check
        CHECK (num_nulls(returned_at, returned_by, answered_on, file_sha256) IN (0, 4))
);
CREATE UNIQUE INDEX partner_review_open_idx ON partner_review (partner) WHERE (decided_at IS NULL);
CREATE INDEX partner_review_partner_idx ON partner_review (partner, decided_at);

CREATE TABLE partner_answer (
    review_id bigint NOT NULL REFERENCES partner_review (id),
    question text NOT NULL,
    answer text NOT NULL,
    note text NOT NULL,
    CONSTRAINT partner_answer_answer_check CHECK (answer IN ('yes', 'no', 'not_applicable')),
    PRIMARY KEY (review_id, question)
);

CREATE TABLE partner_sub_processor (
    review_id bigint NOT NULL REFERENCES partner_review (id),
    position integer NOT NULL,
    name text NOT NULL,
    country text NOT NULL,
    purpose text NOT NULL,
    PRIMARY KEY (review_id, position)
);

CREATE TABLE quality_check (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    database text NOT NULL,
    collection text NOT NULL,
    rule text NOT NULL,
    definition text NOT NULL,
    checked_at timestamptz NOT NULL,
    whole boolean NOT NULL,
    rows bigint,
    broken bigint,
    outcome text NOT NULL,
    watermark text,
    number bigint GENERATED ALWAYS AS IDENTITY,
    CONSTRAINT quality_check_outcome_check CHECK (outcome IN ('pass', 'attention', 'fail')),
    PRIMARY KEY (dag_id, run_id, database, collection, rule)
);
CREATE INDEX quality_check_collection_idx ON quality_check (database, collection, checked_at);
CREATE INDEX quality_check_database_idx ON quality_check (database, checked_at);

CREATE TABLE quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    database text NOT NULL,
    collection text NOT NULL,
    rule text NOT NULL,
    key text NOT NULL,
    part text,
    found_at timestamptz NOT NULL,
    found_dag_id text NOT NULL,
    found_run_id text NOT NULL,
    resolved_at timestamptz,
    resolved_dag_id text,
    resolved_run_id text,
    CONSTRAINT quarantine_resolved_check
        CHECK (num_nulls(resolved_at, resolved_dag_id, resolved_run_id) IN (0, 3))
);
CREATE UNIQUE INDEX quarantine_open_key ON quarantine (database, collection, rule, key)
    WHERE (resolved_at IS NULL);

CREATE TABLE register_loss (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    accepted_at timestamptz NOT NULL,
    accepted_by text NOT NULL,
    because text NOT NULL,
    lost jsonb NOT NULL,
    figures jsonb NOT NULL,
    key_fingerprint text NOT NULL,
    signature bytea NOT NULL
);

CREATE TABLE restore_point_operation (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store text NOT NULL,
    database text NOT NULL,
    point text NOT NULL,
    operation text NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    result text,
    CONSTRAINT restore_point_operation_result_check CHECK ((ended_at IS NULL) = (result IS NULL)),
    CONSTRAINT restore_point_operation_operation_check CHECK (operation IN ('publish', 'remove'))
);
CREATE INDEX restore_point_operation_unfinished_idx ON restore_point_operation (database, store)
    WHERE (ended_at IS NULL);

CREATE TABLE run_artifact (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    name text NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (dag_id, run_id, name)
);

CREATE TABLE run_step (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    step text NOT NULL,
    part text NOT NULL,
    recorded_at timestamptz NOT NULL,
    record jsonb NOT NULL,
    PRIMARY KEY (dag_id, run_id, step, part)
);

CREATE TABLE scratch_database (
    name text PRIMARY KEY,
    server text NOT NULL,
    created_at timestamptz NOT NULL,
    dropped_at timestamptz,
    dag_id text NOT NULL,
    run_id text NOT NULL
);

CREATE TABLE training_coverage (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    department text NOT NULL,
    day date NOT NULL,
    at timestamptz NOT NULL,
    people bigint NOT NULL,
    covered bigint NOT NULL,
    overdue bigint NOT NULL,
    PRIMARY KEY (dag_id, run_id, department)
);
CREATE INDEX training_coverage_day_idx ON training_coverage (day);

CREATE TABLE training_upload (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    sha256 text NOT NULL,
    lines bigint NOT NULL,
    uploaded_by text NOT NULL,
    uploaded_at timestamptz NOT NULL,
    CONSTRAINT training_upload_kind_check CHECK (kind IN ('roster', 'courses', 'completions'))
);

CREATE TABLE training_completion (
    upload_id bigint NOT NULL REFERENCES training_upload (id),
    person text NOT NULL,
    course text NOT NULL,
    version integer NOT NULL,
    completed_on date NOT NULL,
    passed boolean NOT NULL
);
CREATE INDEX training_completion_person_idx ON training_completion (person, course);
CREATE INDEX training_completion_upload_id_idx ON training_completion (upload_id);

CREATE TABLE training_course (
    upload_id bigint NOT NULL REFERENCES training_upload (id),
    course text NOT NULL,
    title text NOT NULL,
    topic text NOT NULL,
    version integer NOT NULL,
    published_on date NOT NULL,
    within_days integer NOT NULL,
    repeat_months integer,
    due_each_year text,
    retake_within_days integer
);
CREATE INDEX training_course_upload_id_idx ON training_course (upload_id);

CREATE TABLE training_roster (
    upload_id bigint NOT NULL REFERENCES training_upload (id),
    person text NOT NULL,
    name text NOT NULL,
    mail text,
    department text NOT NULL,
    supervisor text,
    head boolean NOT NULL,
    joined_on date NOT NULL,
    left_on date,
    leave_from date,
    leave_until date,
    access boolean NOT NULL
);
CREATE INDEX training_roster_upload_id_idx ON training_roster (upload_id);

CREATE TABLE training_waiver (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person text NOT NULL,
    course text NOT NULL,
    reason text NOT NULL,
    until date NOT NULL,
    granted_by text NOT NULL,
    granted_at timestamptz NOT NULL,
    ended_by text,
    ended_at timestamptz,
    CONSTRAINT training_waiver_ended_check CHECK (num_nulls(ended_by, ended_at) IN (0, 2))
);
CREATE UNIQUE INDEX training_waiver_open_idx ON training_waiver (person, course)
    WHERE (ended_at IS NULL);


-- Functions of the triggers below. They name tables with the schema of the table that changes:
-- drills have registers of their own, and a temporary table that a session put first in its search
-- path must not count.

CREATE FUNCTION batch_stays_once_settled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.settled_at IS NOT NULL THEN
        RAISE EXCEPTION 'erasure_batch is a register that stays: % of settled batch % is refused',
            TG_OP, OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

-- By statement: entries are copied by 64, and a row trigger would run for each. The code enters one
-- batch by each statement: a lookup by key takes less time than the join.
CREATE FUNCTION entry_is_of_open_batch() RETURNS trigger LANGUAGE plpgsql AS $_$
DECLARE
    lowest bigint;
    highest bigint;
    settled bigint;
BEGIN
    SELECT min(batch_id), max(batch_id) INTO lowest, highest FROM added;
    IF lowest = highest THEN
        EXECUTE format('SELECT id FROM %I.erasure_batch WHERE id = $1 AND settled_at IS NOT NULL',
            TG_TABLE_SCHEMA) INTO settled USING lowest;
    ELSIF lowest < highest THEN
        EXECUTE format('SELECT b.id FROM %I.erasure_batch b WHERE b.settled_at IS NOT NULL'
            ' AND b.id IN (SELECT batch_id FROM added) LIMIT 1', TG_TABLE_SCHEMA) INTO settled;
    END IF;
    IF settled IS NOT NULL THEN
        RAISE EXCEPTION 'erasure is a register that stays: % of an entry of settled batch % is'
            ' refused', TG_OP, settled
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $_$;

-- By statement: one statement withdraws thousands of entries of an open batch.
CREATE FUNCTION entry_stays_once_settled() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    settled bigint;
BEGIN
    EXECUTE format('SELECT b.id FROM %I.erasure_batch b WHERE b.settled_at IS NOT NULL'
        ' AND b.id IN (SELECT batch_id FROM gone) LIMIT 1', TG_TABLE_SCHEMA) INTO settled;
    IF settled IS NOT NULL THEN
        RAISE EXCEPTION 'erasure is a register that stays: % of an entry of settled batch % is'
            ' refused', TG_OP, settled
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION finding_is_only_closed() RETURNS trigger LANGUAGE plpgsql AS $_$
DECLARE
    met boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.finding_event WHERE finding_id = $1'
        ' AND kind = %L)', TG_TABLE_SCHEMA, 'met') INTO met USING OLD.id;
    IF OLD.closed_at IS NOT NULL OR NEW.closed_at IS NULL OR NOT met
        OR to_jsonb(OLD) - 'closed_at' IS DISTINCT FROM to_jsonb(NEW) - 'closed_at' THEN
        RAISE EXCEPTION 'finding is a register that stays: finding % is only ever closed, once, by'
            ' a test that is met', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $_$;

CREATE FUNCTION hold_is_only_released() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    release text[] := ARRAY['released_at', 'released_by', 'release_reason'];
BEGIN
    IF OLD.released_at IS NOT NULL OR NEW.released_at IS NULL
        OR to_jsonb(OLD) - release IS DISTINCT FROM to_jsonb(NEW) - release THEN
        RAISE EXCEPTION 'legal_hold is a register that stays: hold % is only ever released, once',
            OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION incident_facts_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.number, OLD.dag_id, OLD.run_id, OLD.type, OLD.what, OLD.noticed_by,
            OLD.opened_by, OLD.opened_at, OLD.aware_at, OLD.began_at, OLD.partner,
            OLD.selection, OLD.fingerprint, OLD.clocks, OLD.duplicate_of)
        IS DISTINCT FROM (NEW.id, NEW.number, NEW.dag_id, NEW.run_id, NEW.type, NEW.what,
            NEW.noticed_by, NEW.opened_by, NEW.opened_at, NEW.aware_at, NEW.began_at, NEW.partner,
            NEW.selection, NEW.fingerprint, NEW.clocks, NEW.duplicate_of)
        OR OLD.state <> 'open' AND (OLD.state, OLD.ended_at, OLD.grade)
            IS DISTINCT FROM (NEW.state, NEW.ended_at, NEW.grade) THEN
        RAISE EXCEPTION 'what incident % began with, and how it ended, is history', OLD.number
            USING ERRCODE = 'restrict_violation', HINT = 'Append what corrects it.';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION incident_history_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is history', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'Append what corrects it.';
END $$;

CREATE FUNCTION incidents_are_not_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM incident) THEN
        RAISE EXCEPTION '% is history', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation', HINT = 'Append what corrects it.';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION partner_answer_is_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one bigint;
    decided timestamptz;
BEGIN
    -- Of an update both: an answer is moved neither out of a review that is history nor into one.
    FOREACH one IN ARRAY CASE TG_OP
        WHEN 'INSERT' THEN ARRAY[NEW.review_id]
        WHEN 'DELETE' THEN ARRAY[OLD.review_id]
        ELSE ARRAY[OLD.review_id, NEW.review_id] END
    LOOP
        -- Locked first, so that a decision that is being made is seen.
        SELECT decided_at INTO decided FROM partner_review WHERE id = one FOR SHARE;
        IF decided IS NOT NULL THEN
            RAISE EXCEPTION 'review % was decided on: it is history', one
                USING ERRCODE = 'restrict_violation', HINT = 'A correction is a new review.';
        END IF;
    END LOOP;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION partner_history_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM partner_review WHERE decided_at IS NOT NULL) THEN
        RAISE EXCEPTION 'reviews that were decided on are history'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION partner_review_is_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.decided_at IS NOT NULL THEN
        RAISE EXCEPTION 'review % was decided on: it is history', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = 'A correction is a new review.';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION register_is_not_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    filled boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I)', TG_TABLE_SCHEMA, TG_TABLE_NAME)
        INTO filled;
    IF filled THEN
        RAISE EXCEPTION '% is a register that stays: % is refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION register_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is a register that stays: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
END $$;

CREATE FUNCTION request_is_only_closed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    closing text[] := ARRAY['closed_at', 'closed_by', 'closed_because'];
    counts text[] := ARRAY['found_at', 'restricted_at', 'oversized_at'];
BEGIN
    IF to_jsonb(OLD) - closing - counts IS DISTINCT FROM to_jsonb(NEW) - closing - counts
        OR OLD.closed_at IS NOT NULL
            AND to_jsonb(OLD) - counts IS DISTINCT FROM to_jsonb(NEW) - counts THEN
        RAISE EXCEPTION 'erasure_request is a register that stays: request % is only ever closed,'
            ' once', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;


-- Triggers. The last argument is the hint of the error: how to do it instead.

CREATE TRIGGER added AFTER INSERT ON erasure REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION entry_is_of_open_batch(
        'Nothing adds to a settled batch: restore the state database where entries are wrong.');
CREATE TRIGGER added_by_move AFTER UPDATE ON erasure REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION entry_is_of_open_batch(
        'Nothing adds to a settled batch: restore the state database where entries are wrong.');
CREATE TRIGGER emptied BEFORE TRUNCATE ON erasure
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Nothing removes an erasure: restore the state database where entries are wrong.');
CREATE TRIGGER moved AFTER UPDATE ON erasure REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION entry_stays_once_settled(
        'Nothing removes an erasure: restore the state database where entries are wrong.');
CREATE TRIGGER stays AFTER DELETE ON erasure REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION entry_stays_once_settled(
        'Nothing removes an erasure: restore the state database where entries are wrong.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON erasure_batch
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Nothing removes an erasure: restore the state database where entries are wrong.');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON erasure_batch
    FOR EACH ROW EXECUTE FUNCTION batch_stays_once_settled(
        'Nothing removes an erasure: restore the state database where entries are wrong.');

CREATE TRIGGER closed BEFORE UPDATE ON erasure_request
    FOR EACH ROW EXECUTE FUNCTION request_is_only_closed(
        'Withdraw the request (./parcelseal erasure withdraw), and enter another.');
CREATE TRIGGER emptied BEFORE TRUNCATE ON erasure_request
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Withdraw the request (./parcelseal erasure withdraw), and enter another.');
CREATE TRIGGER stays BEFORE DELETE ON erasure_request
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'Withdraw the request (./parcelseal erasure withdraw), and enter another.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON evidence_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Nothing removes a row: pruned evidence keeps it, and what was wrong is run and sealed again.');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON evidence_ledger
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'Nothing removes a row: pruned evidence keeps it, and what was wrong is run and sealed again.');

CREATE TRIGGER closed BEFORE UPDATE ON finding
    FOR EACH ROW EXECUTE FUNCTION finding_is_only_closed(
        'Answer the finding and test it again: ./parcelseal findings answer, then retest.');
CREATE TRIGGER emptied BEFORE TRUNCATE ON finding
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Answer the finding and test it again: ./parcelseal findings answer, then retest.');
CREATE TRIGGER stays BEFORE DELETE ON finding
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'Answer the finding and test it again: ./parcelseal findings answer, then retest.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON finding_event
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Answer the finding and test it again: ./parcelseal findings answer, then retest.');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON finding_event
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'Answer the finding and test it again: ./parcelseal findings answer, then retest.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON incident
    FOR EACH STATEMENT EXECUTE FUNCTION incidents_are_not_emptied();
CREATE TRIGGER facts BEFORE UPDATE ON incident
    FOR EACH ROW EXECUTE FUNCTION incident_facts_stay();
CREATE TRIGGER rules BEFORE UPDATE OF kept ON incident
    FOR EACH ROW WHEN (OLD.kept IS DISTINCT FROM NEW.kept)
    EXECUTE FUNCTION incident_history_stays();
CREATE TRIGGER stays BEFORE DELETE ON incident
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();

CREATE TRIGGER emptied BEFORE TRUNCATE ON incident_entry
    FOR EACH STATEMENT EXECUTE FUNCTION incidents_are_not_emptied();
CREATE TRIGGER history BEFORE DELETE OR UPDATE ON incident_entry
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();

CREATE TRIGGER emptied BEFORE TRUNCATE ON incident_scope
    FOR EACH STATEMENT EXECUTE FUNCTION incidents_are_not_emptied();
CREATE TRIGGER history BEFORE DELETE OR UPDATE ON incident_scope
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();

CREATE TRIGGER emptied BEFORE TRUNCATE ON incident_subject
    FOR EACH STATEMENT EXECUTE FUNCTION incidents_are_not_emptied();
CREATE TRIGGER history BEFORE DELETE OR UPDATE ON incident_subject
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();

CREATE TRIGGER emptied BEFORE TRUNCATE ON legal_hold
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Release the hold (./parcelseal hold release), and place another where it was wrong.');
CREATE TRIGGER released BEFORE UPDATE ON legal_hold
    FOR EACH ROW EXECUTE FUNCTION hold_is_only_released(
        'Release the hold (./parcelseal hold release), and place another where it was wrong.');
CREATE TRIGGER stays BEFORE DELETE ON legal_hold
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'Release the hold (./parcelseal hold release), and place another where it was wrong.');

CREATE TRIGGER history BEFORE INSERT OR DELETE OR UPDATE ON partner_answer
    FOR EACH ROW EXECUTE FUNCTION partner_answer_is_history();
CREATE TRIGGER stays BEFORE TRUNCATE ON partner_answer
    FOR EACH STATEMENT EXECUTE FUNCTION partner_history_stays();

CREATE TRIGGER history BEFORE DELETE OR UPDATE ON partner_review
    FOR EACH ROW EXECUTE FUNCTION partner_review_is_history();
CREATE TRIGGER stays BEFORE TRUNCATE ON partner_review
    FOR EACH STATEMENT EXECUTE FUNCTION partner_history_stays();

CREATE TRIGGER history BEFORE INSERT OR DELETE OR UPDATE ON partner_sub_processor
    FOR EACH ROW EXECUTE FUNCTION partner_answer_is_history();
CREATE TRIGGER stays BEFORE TRUNCATE ON partner_sub_processor
    FOR EACH STATEMENT EXECUTE FUNCTION partner_history_stays();

CREATE TRIGGER emptied BEFORE TRUNCATE ON register_loss
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Accept a loss once more (./parcelseal recover-ledger --accept-losses).');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON register_loss
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'Accept a loss once more (./parcelseal recover-ledger --accept-losses).');
