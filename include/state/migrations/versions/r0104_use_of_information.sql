-- Requests for customer information, their grants, and the openings of their extracts.

CREATE TABLE use_request (
    id bigint GENERATED ALWAYS AS IDENTITY,
    requester text NOT NULL,
    requested_at timestamptz NOT NULL,
    content jsonb NOT NULL,
    plan jsonb NOT NULL,
    sha256 text NOT NULL,
    CONSTRAINT use_request_pkey PRIMARY KEY (id)
);

CREATE TABLE use_request_run (
    request_id bigint NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    attached_at timestamptz NOT NULL,
    CONSTRAINT use_request_run_pkey PRIMARY KEY (request_id),
    CONSTRAINT use_request_run_dag_id_run_id_key UNIQUE (dag_id, run_id),
    FOREIGN KEY(request_id) REFERENCES use_request (id)
);

CREATE TABLE use_request_key (
    request_id bigint NOT NULL,
    key text NOT NULL,
    CONSTRAINT use_request_key_pkey PRIMARY KEY (request_id, key),
    FOREIGN KEY(request_id) REFERENCES use_request (id)
);

CREATE TABLE use_grant (
    request_id bigint NOT NULL,
    sha256 text NOT NULL,
    approvals jsonb NOT NULL,
    department text NOT NULL,
    approved_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    state text NOT NULL,
    attempt text DEFAULT '' NOT NULL,
    object_key text DEFAULT '' NOT NULL,
    store text DEFAULT '' NOT NULL,
    delivered_at timestamptz,
    snapshot_at timestamptz,
    records bigint,
    size bigint,
    file_sha256 text,
    end_reason text,
    ending_at timestamptz,
    ended_by text DEFAULT '' NOT NULL,
    ended_at timestamptz,
    confirmed_at timestamptz,
    confirmed_by text,
    CONSTRAINT use_grant_pkey PRIMARY KEY (request_id),
    CONSTRAINT use_grant_state_check CHECK (state IN ('approved', 'delivering', 'delivered', 'ending', 'ended')),
    CONSTRAINT use_grant_expires_at_check CHECK (expires_at > approved_at),
    CONSTRAINT use_grant_delivered_check CHECK (num_nulls(delivered_at, snapshot_at, records, size, file_sha256) IN (0, 5)),
    CONSTRAINT use_grant_delivered_state_check CHECK (state <> 'delivered' OR delivered_at IS NOT NULL),
    CONSTRAINT use_grant_ending_check CHECK (num_nulls(end_reason, ending_at) IN (0, 2)),
    CONSTRAINT use_grant_ending_state_check CHECK ((state IN ('ending', 'ended')) = (ending_at IS NOT NULL)),
    CONSTRAINT use_grant_ended_check CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CONSTRAINT use_grant_confirmed_check CHECK (num_nulls(confirmed_at, confirmed_by) IN (0, 2)),
    FOREIGN KEY(request_id) REFERENCES use_request (id)
);

CREATE INDEX use_grant_live_idx ON use_grant (expires_at) WHERE state <> 'ended';

CREATE TABLE use_opening (
    id bigint GENERATED ALWAYS AS IDENTITY,
    request_id bigint NOT NULL,
    opened_by text NOT NULL,
    opened_at timestamptz NOT NULL,
    channel text NOT NULL,
    CONSTRAINT use_opening_pkey PRIMARY KEY (id),
    CONSTRAINT use_opening_channel_check CHECK (channel IN ('page', 'command')),
    FOREIGN KEY(request_id) REFERENCES use_grant (request_id)
);

CREATE INDEX use_opening_request_idx ON use_opening (request_id);

CREATE TABLE use_attempt (
    object_key text NOT NULL,
    request_id bigint NOT NULL,
    begun_at timestamptz NOT NULL,
    CONSTRAINT use_attempt_pkey PRIMARY KEY (object_key),
    FOREIGN KEY(request_id) REFERENCES use_grant (request_id)
);

CREATE INDEX use_attempt_request_idx ON use_attempt (request_id);

CREATE TABLE use_subject (
    request_id bigint NOT NULL,
    attempt text NOT NULL,
    key_hmac bytea NOT NULL,
    CONSTRAINT use_subject_pkey PRIMARY KEY (request_id, attempt, key_hmac)
);

CREATE INDEX use_subject_key_idx ON use_subject (key_hmac);

CREATE TRIGGER emptied BEFORE TRUNCATE ON use_request
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'An edited request is a new request. Requests stay as the record of each use.');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON use_request
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'An edited request is a new request. Requests stay as the record of each use.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON use_request_run
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied('A request belongs to one run.');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON use_request_run
    FOR EACH ROW EXECUTE FUNCTION register_stays('A request belongs to one run.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON use_grant
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'Grants stay as the record of each use. End a grant: ./parcelseal access end.');
CREATE TRIGGER stays BEFORE DELETE ON use_grant
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'Grants stay as the record of each use. End a grant: ./parcelseal access end.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON use_attempt
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied('Each attempt stays recorded.');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON use_attempt
    FOR EACH ROW EXECUTE FUNCTION register_stays('Each attempt stays recorded.');

CREATE TRIGGER emptied BEFORE TRUNCATE ON use_opening
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied('Each opening stays recorded.');
CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON use_opening
    FOR EACH ROW EXECUTE FUNCTION register_stays('Each opening stays recorded.');

-- The approved content, its times and its end never change afterwards.
CREATE FUNCTION grant_only_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    states text[] := ARRAY['approved', 'delivering', 'delivered', 'ending', 'ended'];
    approved text[] := ARRAY['request_id', 'sha256', 'approvals', 'department', 'approved_at', 'expires_at'];
    column_name text;
BEGIN
    FOREACH column_name IN ARRAY approved LOOP
        IF to_jsonb(OLD) -> column_name IS DISTINCT FROM to_jsonb(NEW) -> column_name THEN
            RAISE EXCEPTION 'the approved % of a grant never changes', column_name
                USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
        END IF;
    END LOOP;
    IF array_position(states, NEW.state) < array_position(states, OLD.state)
        OR OLD.ending_at IS NOT NULL AND (OLD.ending_at, OLD.end_reason, OLD.ended_by)
            IS DISTINCT FROM (NEW.ending_at, NEW.end_reason, NEW.ended_by)
        OR OLD.confirmed_at IS NOT NULL AND (OLD.confirmed_at, OLD.confirmed_by)
            IS DISTINCT FROM (NEW.confirmed_at, NEW.confirmed_by) THEN
        RAISE EXCEPTION 'a grant only moves on: from % to % is refused', OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER moves_on BEFORE UPDATE ON use_grant
    FOR EACH ROW EXECUTE FUNCTION grant_only_moves_on(
        'Ask for a new approval with a new request: ./parcelseal access request.');
