-- The status of a message follows from its verdict and its attempts, and that of an attempt from its
-- parts (docs/decisions/0002). `domain/states.py` has the same two functions; a property test compares
-- them. A transaction that leaves another status cannot be committed.

CREATE FUNCTION attempt_folds(of_messages uuid[])
RETURNS TABLE (message_id uuid, number smallint, status text) STABLE LANGUAGE sql AS $$
    SELECT a.message_id, a.number, CASE
        WHEN bool_and(part.status = 'delivered') THEN 'delivered'
        WHEN bool_or(part.status = 'undelivered') THEN 'undelivered'
        WHEN bool_or(part.status = 'submitting') THEN 'submitting'
        WHEN a.expired THEN 'expired'
        WHEN bool_or(part.status = 'unknown') THEN 'unknown'
        WHEN bool_and(part.status IN ('accepted', 'delivered')) THEN 'accepted'
        WHEN bool_or(part.status IN ('accepted', 'delivered')) THEN 'partial'
        WHEN bool_or(part.status = 'refused') THEN 'refused'
        WHEN bool_or(part.status = 'throttled') THEN 'throttled'
        ELSE 'unreachable'
    END
    FROM attempts a
    LEFT JOIN parts p ON p.message_id = a.message_id AND p.attempt = a.number
                     AND p.message_id = ANY(of_messages)
    CROSS JOIN LATERAL (SELECT coalesce(a.part_status, p.status) AS status) part
    WHERE a.message_id = ANY(of_messages)
    GROUP BY a.message_id, a.number
$$;

CREATE FUNCTION message_folds(of_messages uuid[])
RETURNS TABLE (id uuid, status text) STABLE LANGUAGE sql AS $$
    SELECT m.id, CASE
        WHEN tried.delivered THEN 'delivered'
        WHEN m.verdict IS NOT NULL THEN m.verdict
        ELSE CASE tried.latest
            WHEN 'submitting' THEN 'sending'
            WHEN 'accepted' THEN 'sent'
            WHEN 'unknown' THEN 'unknown'
            ELSE CASE WHEN tried.latest IS NULL THEN 'queued' ELSE 'retried' END
        END
    END
    FROM messages m
    CROSS JOIN LATERAL (
        SELECT bool_or(a.status = 'delivered') AS delivered,
               (array_agg(a.status ORDER BY a.number DESC)
                    FILTER (WHERE a.number >= m.first_attempt))[1] AS latest
        FROM attempts a WHERE a.message_id = m.id
    ) tried
    WHERE m.id = ANY(of_messages)
$$;

-- The check runs once for each commit, so that one transaction can write an outcome first and the
-- status that follows from it second, and so that many messages cost one check.
--
-- Statement triggers collect the ids of changed messages in a setting of the transaction
-- (`smsgateway.touched`). The first of them inserts a row into `fold_checks`. The deferred trigger of
-- that row runs at the commit, checks all collected messages, and deletes the row.

CREATE UNLOGGED TABLE fold_checks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);

-- A statement that changes up to 20 messages has all of them checked; a larger one has about 20 of
-- them checked, chosen at random. Code that writes a wrong status for one message in ten is detected
-- in its first large statement. With the setting `smsgateway.folds_checked` = 'all' every message is
-- checked, as in the tests.
CREATE FUNCTION share_to_check(touched bigint) RETURNS double precision STABLE LANGUAGE sql AS $$
    SELECT CASE WHEN touched <= 20
                  OR coalesce(current_setting('smsgateway.folds_checked', true), '') = 'all'
                THEN 1 ELSE 20.0 / touched END
$$;

CREATE FUNCTION check_later(touched uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before text := coalesce(current_setting('smsgateway.touched', true), '');
BEGIN
    IF touched IS NULL THEN
        RETURN;
    END IF;
    IF before = '' THEN
        INSERT INTO fold_checks DEFAULT VALUES;
    END IF;
    PERFORM set_config('smsgateway.touched', before || ',' || array_to_string(touched, ','), true);
END $$;

CREATE FUNCTION messages_touched() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    share double precision := share_to_check((SELECT count(*) FROM changed));
BEGIN
    PERFORM check_later((SELECT array_agg(id) FROM changed WHERE random() <= share));
    RETURN NULL;
END $$;

CREATE FUNCTION attempts_touched() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    share double precision := share_to_check((SELECT count(*) FROM changed));
BEGIN
    PERFORM check_later((SELECT array_agg(message_id) FROM changed WHERE random() <= share));
    RETURN NULL;
END $$;

CREATE TRIGGER touched_by_insert AFTER INSERT ON messages
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION messages_touched();
CREATE TRIGGER touched_by_update AFTER UPDATE ON messages
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION messages_touched();
CREATE TRIGGER touched_by_insert AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();
CREATE TRIGGER touched_by_update AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();
CREATE TRIGGER touched_by_insert AFTER INSERT ON parts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();
CREATE TRIGGER touched_by_update AFTER UPDATE ON parts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();

CREATE FUNCTION check_folds() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched uuid[];
    wrong record;
BEGIN
    SELECT array_agg(DISTINCT each::uuid) INTO touched
    FROM unnest(string_to_array(ltrim(current_setting('smsgateway.touched'), ','), ',')) AS each;
    PERFORM set_config('smsgateway.touched', '', true);
    DELETE FROM fold_checks WHERE id = NEW.id;
    SELECT a.message_id, a.status, f.status AS folded INTO wrong
    FROM attempt_folds(touched) f
    JOIN attempts a ON a.message_id = f.message_id AND a.number = f.number
    WHERE a.message_id = ANY(touched) AND a.status IS DISTINCT FROM f.status LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt of message % cannot be %: its parts make it %',
            wrong.message_id, wrong.status, wrong.folded USING ERRCODE = 'check_violation';
    END IF;
    SELECT m.id, m.status, f.status AS folded INTO wrong
    FROM message_folds(touched) f JOIN messages m ON m.id = f.id
    WHERE m.id = ANY(touched) AND m.status IS DISTINCT FROM f.status LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'message % cannot be %: its attempts and verdict make it %',
            wrong.id, wrong.status, wrong.folded USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_folds AFTER INSERT ON fold_checks
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_folds();
