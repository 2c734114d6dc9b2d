-- Recompute the figures of registers that a bundle sealed (docs/how-to/recover-lost-records.md, "Recompute a figure").
-- The variable "figures" is `registers.figures` of the bundle's result.json. The script only reads.
-- The line "entries" compares the entries of each settled batch of erasures with the number and the
-- digest that the batch keeps. The figure "erasure" covers the batches alone. It takes seconds for
-- each million entries.
-- "whole" is the text of a row. "opened" is its text while it was open, without its last columns.
SET client_encoding = 'UTF8';
WITH sealed AS (
    SELECT name, figure ->> 'sha256' AS sha256, (figure ->> 'highest_id')::bigint AS highest,
        (SELECT coalesce(range_agg(int8range((r ->> 0)::bigint, (r ->> 1)::bigint, '[]')), '{}')
            FROM jsonb_array_elements(figure -> 'open') r) AS open_ids,
        CASE WHEN jsonb_typeof(figure -> 'ids') = 'array' THEN
            (SELECT coalesce(range_agg(int8range((r ->> 0)::bigint, (r ->> 1)::bigint, '[]')), '{}')
                FROM jsonb_array_elements(figure -> 'ids') r) END AS ids
    FROM jsonb_each(:'figures'::jsonb) AS f (name, figure)
), register AS (
    SELECT 'erasure' AS name, id, NULL AS opened, ROW(
        id, database, collection, action, record_class, rule, dag_id, run_id,
        (extract(epoch FROM erased_at) * 1000000)::bigint, transaction, server, records, key_types,
        entries, encode(entries_sha256, 'hex'),
        (extract(epoch FROM settled_at) * 1000000)::bigint)::text AS whole
    FROM erasure_batch
    UNION ALL
    SELECT 'legal_hold', id, ROW(
        id, kind, value, reason, owner, case_ref,
        (extract(epoch FROM placed_at) * 1000000)::bigint, to_char(review_on, 'YYYY-MM-DD'))::text,
        ROW(
        id, kind, value, reason, owner, case_ref,
        (extract(epoch FROM placed_at) * 1000000)::bigint, to_char(review_on, 'YYYY-MM-DD'),
        (extract(epoch FROM released_at) * 1000000)::bigint, released_by, release_reason)::text
    FROM legal_hold
    UNION ALL
    SELECT 'erasure_request', id, ROW(
        id, database, subject, reference, to_char(received_on, 'YYYY-MM-DD'),
        to_char(due_on, 'YYYY-MM-DD'), entered_by,
        (extract(epoch FROM entered_at) * 1000000)::bigint)::text,
        ROW(
        id, database, subject, reference, to_char(received_on, 'YYYY-MM-DD'),
        to_char(due_on, 'YYYY-MM-DD'), entered_by,
        (extract(epoch FROM entered_at) * 1000000)::bigint,
        (extract(epoch FROM closed_at) * 1000000)::bigint, closed_by, closed_because)::text
    FROM erasure_request
    UNION ALL
    SELECT 'finding', id, ROW(
        id, kind, reference, description, owner, (extract(epoch FROM opened_at) * 1000000)::bigint,
        to_char(due_on, 'YYYY-MM-DD'))::text,
        ROW(
        id, kind, reference, description, owner, (extract(epoch FROM opened_at) * 1000000)::bigint,
        to_char(due_on, 'YYYY-MM-DD'), (extract(epoch FROM closed_at) * 1000000)::bigint)::text
    FROM finding
    UNION ALL
    SELECT 'finding_event', id, NULL, ROW(
        id, finding_id, kind, by, (extract(epoch FROM at) * 1000000)::bigint, cause, action,
        to_char(due_on, 'YYYY-MM-DD'))::text
    FROM finding_event
), counted AS (
    SELECT name, id,
        sha256(convert_to(CASE WHEN id <@ open_ids THEN opened ELSE whole END, 'UTF8')) AS digest
    FROM sealed JOIN register USING (name)
    WHERE id <= highest AND (ids IS NULL OR id <@ ids)
        AND NOT (name = 'erasure' AND id <@ open_ids)  -- open batches do not count
), entries AS (
    SELECT count(e.key_hmac) AS present, b.entries_sha256 IS DISTINCT FROM
        sha256(coalesce(string_agg(
            e.key_hmac || convert_to(e.action || ' ' || e.key_id || chr(10), 'UTF8'), ''::bytea
            ORDER BY e.key_hmac, e.action COLLATE "C", e.key_id COLLATE "C"
        ), ''::bytea)) OR b.entries <> count(e.key_hmac) AS differs
    FROM erasure_batch b LEFT JOIN erasure e ON e.batch_id = b.id
    WHERE b.settled_at IS NOT NULL GROUP BY b.id
)
SELECT name, count(digest) AS rows, now.sha256,
    CASE WHEN now.sha256 = sealed.sha256 THEN 'as sealed' ELSE 'DIFFERS' END AS result
FROM sealed LEFT JOIN counted USING (name)
CROSS JOIN LATERAL (
    SELECT encode(sha256(coalesce(string_agg(c.digest, ''::bytea ORDER BY c.id), ''::bytea)), 'hex')
        AS sha256
    FROM counted c WHERE c.name = sealed.name
) AS now
GROUP BY name, now.sha256, sealed.sha256
UNION ALL
SELECT 'entries', coalesce(sum(present), 0)::bigint, NULL, format('%s batches as settled, %s %s',
    count(*) FILTER (WHERE NOT differs), count(*) FILTER (WHERE differs),
    CASE WHEN bool_or(differs) THEN 'DIFFER' ELSE 'differ' END)
FROM entries ORDER BY name;
