"""The statements with which messages are taken in hand."""

from __future__ import annotations

from sqlalchemy import text

DISSOLVE = text(
    """
    WITH old AS (
        SELECT id FROM notice_message WHERE state = 'deferred' AND NOT urgent AND day < :day
        FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE notice SET message = NULL FROM old
        WHERE notice.message = old.id AND notice.state = 'pending'
    )
    UPDATE notice_message m SET state = 'dissolved', next_try_at = NULL, settled_at = :now
    FROM old WHERE m.id = old.id
    """
)
# Of a deferred one the server said that it does not have it. One that is still being sent after its
# lease was cut off between sending and recording, or the server never answered: in doubt.
AGAIN = text(
    """
    SELECT id, message_id, recipient, urgent, text, tries, created_at, copies,
        state = 'sending' AS doubtful
    FROM notice_message
    WHERE channel = :channel AND (state = 'deferred' AND next_try_at <= :now
        OR state = 'sending' AND claimed_until <= :now)
        AND (urgent OR :telling OR state = 'sending' AND :report) AND (text <> '') = :letters
    ORDER BY urgent DESC, id LIMIT :size FOR UPDATE SKIP LOCKED
    """
)
# The first notice of a recipient stands for all of them: who has its lock, makes the message. Those
# of one text are a message of their own; those without any are the digest.
DUE = text(
    """
    SELECT n.recipient, coalesce(n.text, '') AS text FROM notice n
    WHERE n.state = 'pending' AND n.message IS NULL AND n.channel = :channel
        AND n.urgent = :urgent AND (n.text IS NOT NULL) = :letters
        AND n.recipient >= :after AND (n.recipient, coalesce(n.text, '')) > (:after, :after_text)
        AND n.kind <> ALL(:unsure)
        AND NOT EXISTS (
            SELECT FROM notice o WHERE o.recipient = n.recipient AND o.channel = n.channel
            AND o.state = 'pending' AND o.message IS NULL AND o.urgent = n.urgent
            AND o.text IS NOT DISTINCT FROM n.text AND o.kind <> ALL(:unsure) AND o.id < n.id
        )
        AND (n.urgent OR NOT EXISTS (
            SELECT FROM notice_message m WHERE m.recipient = n.recipient
            AND m.channel = n.channel AND m.day = :day AND m.text = coalesce(n.text, '')
            AND NOT m.urgent AND m.state <> 'dissolved'
        ))
    ORDER BY n.recipient, text LIMIT :size FOR UPDATE OF n SKIP LOCKED
    """
)
MAKE = text(
    """
    INSERT INTO notice_message AS m
        (message_id, recipient, channel, day, urgent, text, state, created_at)
    SELECT to_char(cast(:day AS date), 'YYYYMMDD') || '.'
            || replace(gen_random_uuid()::text, '-', '') || '@' || :domain,
        recipient, :channel, :day, :urgent, text, 'sending', :now
    FROM unnest(cast(:recipients AS text[]), cast(:texts AS text[])) AS r (recipient, text)
    ORDER BY recipient, text
    ON CONFLICT (recipient, channel, day, text) WHERE NOT urgent AND state <> 'dissolved' DO NOTHING
    RETURNING id, message_id, recipient, urgent, text, tries, created_at, copies,
        false AS doubtful
    """
)
# Of each recipient so many as one message holds, those that are due first; the others follow.
# Each part is worked out once, whatever PostgreSQL knows of a table that was just filled.
ATTACH = text(
    """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(cast(:ids AS bigint[]), cast(:recipients AS text[]),
            cast(:texts AS text[]), cast(:mosts AS int[])) AS m (message, recipient, text, most)
    ), held AS MATERIALIZED (
        SELECT message, count(*) AS notices FROM notice
        WHERE message = ANY(cast(:ids AS bigint[])) AND state = 'pending' GROUP BY message
    ), ranked AS MATERIALIZED (
        SELECT n.id, g.message, g.most - coalesce(h.notices, 0) AS room,
            row_number() OVER (PARTITION BY g.message ORDER BY n.due_on, n.id) AS place
        FROM notice n JOIN given g ON g.recipient = n.recipient AND g.text = coalesce(n.text, '')
        LEFT JOIN held h ON h.message = g.message
        WHERE n.state = 'pending' AND n.message IS NULL AND n.channel = :channel
            AND n.urgent = :urgent AND n.kind <> ALL(:unsure)
    ), mine AS (
        SELECT n.id, r.message FROM ranked r JOIN notice n ON n.id = r.id
        WHERE r.place <= r.room AND n.state = 'pending' AND n.message IS NULL
        ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
    )
    UPDATE notice SET message = mine.message FROM mine WHERE notice.id = mine.id
    """
)
FOLLOW = text(
    """
    SELECT m.id, count(*) FROM notice_message m JOIN notice n USING (recipient, channel, urgent)
    WHERE m.id = ANY(:ids) AND n.state = 'pending' AND n.message IS NULL
        AND m.text = coalesce(n.text, '') AND n.kind <> ALL(:unsure) GROUP BY m.id
    """
)
CONTENT = text(
    """
    SELECT n.id, n.message, n.kind, n.key, n.name, n.address, n.looked_up,
        n.heading::text AS heading, n.line::text AS line, n.text, n.due_on,
        n.kind = ANY(:optional) AND o.recipient IS NOT NULL AS refused
    FROM notice n LEFT JOIN notice_optout o ON o.recipient = n.recipient AND o.kind = n.kind
    WHERE n.message = ANY(:ids) AND n.state = 'pending' ORDER BY n.id
    """
)
# Of one that waits as a whole, the moment of its next try tells it from one that is being sent.
TAKE = text(
    """
    UPDATE notice_message SET state = 'sending', tries = tries + 1, claimed_until = :until,
        copies = copies + CASE WHEN id = ANY(:copies) THEN 1 ELSE 0 END,
        next_try_at = CASE WHEN id = ANY(:held) THEN cast(:until AS timestamptz) END
    WHERE id = ANY(:ids)
    """
)
