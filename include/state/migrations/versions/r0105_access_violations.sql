-- Accesses that differ from their approvals, and the newest comparison of each database.

CREATE TABLE access_violation (
    id bigint GENERATED ALWAYS AS IDENTITY,
    database text NOT NULL,
    access text NOT NULL,
    kind text NOT NULL,
    detail text NOT NULL,
    person text,
    department text,
    approval text,
    accessed_at timestamptz,
    first_seen_at timestamptz NOT NULL,
    state text DEFAULT 'open' NOT NULL,
    opened_at timestamptz NOT NULL,
    opened_dag_id text NOT NULL,
    opened_run_id text NOT NULL,
    closed_at timestamptz,
    closed_because text,
    CONSTRAINT access_violation_pkey PRIMARY KEY (id),
    CONSTRAINT access_violation_database_access_kind_key UNIQUE (database, access, kind),
    CONSTRAINT access_violation_kind_check CHECK (kind IN ('without_approval', 'approval_by_requester', 'outside_period', 'outside_purpose', 'outside_fields', 'outside_records')),
    CONSTRAINT access_violation_state_check CHECK (state IN ('open', 'closed')),
    CONSTRAINT access_violation_closed_because_check CHECK (closed_because IN ('covered', 'access_deleted', 'not_compared', 'handled')),
    CONSTRAINT access_violation_closed_check CHECK (num_nulls(closed_at, closed_because) IN (0, 2)),
    CONSTRAINT access_violation_closed_state_check CHECK ((state = 'closed') = (closed_at IS NOT NULL))
);

CREATE INDEX access_violation_open_idx ON access_violation (database, kind) WHERE state = 'open';
CREATE INDEX access_violation_opened_run_id_idx ON access_violation (opened_run_id);
CREATE INDEX access_violation_closed_at_idx ON access_violation (closed_at) WHERE state = 'closed';

CREATE TABLE access_comparison (
    database text NOT NULL,
    definition text NOT NULL,
    compared_at timestamptz NOT NULL,
    compared_until timestamptz,
    full_at timestamptz NOT NULL,
    full_dag_id text NOT NULL,
    full_run_id text NOT NULL,
    full_figures jsonb NOT NULL,
    CONSTRAINT access_comparison_pkey PRIMARY KEY (database)
);

CREATE TRIGGER emptied BEFORE TRUNCATE ON access_violation
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied(
        'A full comparison closes violations that no longer exist: ./parcelseal run expire_grants.');
CREATE TRIGGER stays BEFORE DELETE ON access_violation
    FOR EACH ROW EXECUTE FUNCTION register_stays(
        'A full comparison closes violations that no longer exist: ./parcelseal run expire_grants.');

-- An entry may be closed and opened again. Its key, its kind and its first time never change.
CREATE FUNCTION violation_keeps_its_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.database, OLD.access, OLD.kind, OLD.first_seen_at)
        IS DISTINCT FROM (NEW.id, NEW.database, NEW.access, NEW.kind, NEW.first_seen_at) THEN
        RAISE EXCEPTION 'the key of a violation never changes'
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keeps_key BEFORE UPDATE ON access_violation
    FOR EACH ROW EXECUTE FUNCTION violation_keeps_its_key(
        'A full comparison closes violations that no longer exist: ./parcelseal run expire_grants.');
