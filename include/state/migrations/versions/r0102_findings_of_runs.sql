ALTER TABLE finding
    ADD COLUMN dag_id text,
    ADD COLUMN step text,
    ADD COLUMN part text,
    ADD COLUMN code text,
    ADD COLUMN subject text,
    ADD COLUMN aspect text,
    ADD COLUMN severity text,
    ADD COLUMN clause text,
    ADD COLUMN details jsonb,
    ADD COLUMN opened_in text,
    ADD COLUMN opened_seq bigint,
    ADD CONSTRAINT finding_run_check CHECK (
        num_nulls(dag_id, step, part, code, subject, aspect, severity, clause, details, opened_in,
            opened_seq) = CASE WHEN kind IN ('run', 'event') THEN 0 ELSE 11 END),
    ADD CONSTRAINT finding_severity_check CHECK (severity IN ('attention', 'fail'));
-- A finding that comes back while it is open is the same finding.
CREATE UNIQUE INDEX finding_cause_idx ON finding (dag_id, step, part, code, subject, aspect)
    WHERE (closed_at IS NULL AND dag_id IS NOT NULL);

ALTER TABLE finding_event
    ADD COLUMN reason text,
    ADD COLUMN owner text,
    ADD COLUMN assignee text,
    ADD COLUMN until date,
    ADD COLUMN severity text,
    ADD COLUMN bundle text,
    DROP CONSTRAINT finding_event_kind_check,
    ADD CONSTRAINT finding_event_kind_check CHECK (kind IN ('answered', 'met', 'deviates',
        'reminded', 'closed', 'commented', 'reassigned', 'accepted', 'withdrawn')),
    ADD CONSTRAINT finding_event_bundle_check CHECK ((kind = 'closed') = (bundle IS NOT NULL)),
    ADD CONSTRAINT finding_event_accepted_check
        CHECK ((kind = 'accepted') = (num_nulls(until, severity) = 0));

CREATE TABLE finding_report (
    finding_id bigint PRIMARY KEY,
    bundle text NOT NULL,
    seq bigint NOT NULL,
    reported_at timestamptz NOT NULL,
    severity text NOT NULL,
    description jsonb NOT NULL,
    details jsonb NOT NULL,
    reports integer NOT NULL
);

CREATE TABLE finding_progress (
    id integer PRIMARY KEY,
    seq bigint NOT NULL,
    unread bigint[] DEFAULT '{}' NOT NULL,
    CONSTRAINT finding_progress_one_row_check CHECK (id = 1)
);
-- Runs before the upgrade are history: their findings come back with the next run.
INSERT INTO finding_progress (id, seq) SELECT 1, coalesce(max(seq), 0) FROM evidence_ledger;

-- A finding of a run is closed by a later run, whose bundle is the evidence; every other finding by
-- a passed retest.
CREATE OR REPLACE FUNCTION finding_is_only_closed() RETURNS trigger LANGUAGE plpgsql AS $_$
DECLARE
    closing text := CASE WHEN OLD.kind = 'run' THEN 'closed' ELSE 'met' END;
    may_close boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.finding_event AS e WHERE e.finding_id = $1'
        ' AND e.kind = $2 AND ($2 = %L OR EXISTS (SELECT FROM %I.evidence_ledger AS l'
        ' WHERE l.bundle = e.bundle AND l.seq > $3 AND $4 IN (%L, l.dag_id))))',
        TG_TABLE_SCHEMA, 'met', TG_TABLE_SCHEMA, '')
        INTO may_close USING OLD.id, closing, OLD.opened_seq, OLD.dag_id;
    IF OLD.closed_at IS NOT NULL OR NEW.closed_at IS NULL OR NOT may_close
        OR to_jsonb(OLD) - 'closed_at' IS DISTINCT FROM to_jsonb(NEW) - 'closed_at' THEN
        RAISE EXCEPTION 'finding is a register that stays: finding % is only ever closed, once, by'
            ' %', OLD.id, CASE WHEN OLD.kind = 'run' THEN 'a complete run that no longer reports it'
            ELSE 'a test that is met' END
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $_$;
