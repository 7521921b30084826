-- Events: the history of each message. They are append-only, and partitioned by the month in which
-- their message was accepted, so that old ones are dropped and not deleted row by row
-- (docs/decisions/0015). Ids are UUIDv7, so a month is a range of them.

-- Both tables number their events from one sequence, so that both together are in order.
CREATE SEQUENCE event_numbers;

CREATE TABLE events (
    message_id uuid NOT NULL,
    seq        bigint NOT NULL DEFAULT nextval('event_numbers'),
    at         timestamptz NOT NULL,
    kind       text NOT NULL,
    actor      text NOT NULL,
    previous   text,
    status     text,
    attempt    smallint,
    provider   text,
    network    text,
    code       text,
    reason     text,
    detail     jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (message_id, seq)
) PARTITION BY RANGE (message_id);

-- The same event of many messages of one bulk, stored once.
CREATE TABLE events_of_many (
    bulk_id     uuid NOT NULL,
    seq         bigint NOT NULL DEFAULT nextval('event_numbers'),
    message_ids uuid[] NOT NULL,
    at          timestamptz NOT NULL,
    kind        text NOT NULL,
    actor       text NOT NULL,
    previous    text,
    status      text,
    attempt     smallint,
    provider    text,
    network     text,
    code        text,
    reason      text,
    detail      jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (bulk_id, seq)
) PARTITION BY RANGE (bulk_id);

-- For lists by time, which read a bounded number of rows in this order. Entries are added at the end.
CREATE INDEX events_by_time ON events (at, seq);
CREATE INDEX events_of_many_by_time ON events_of_many (at, seq);

-- The first partitions last until the end of the next month; the reconciler makes the following ones
-- in time. Should it not, the default partitions take their rows.
DO $$
DECLARE
    month_after_next timestamp := date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months';
    -- A UUIDv7 begins with the milliseconds since 1970, in 12 hexadecimal digits.
    milliseconds bigint := extract(epoch FROM month_after_next) * 1000;
    until uuid := rpad(lpad(to_hex(milliseconds), 12, '0'), 32, '0');
BEGIN
    EXECUTE format('CREATE TABLE events_first PARTITION OF events'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', until);
    EXECUTE format('CREATE TABLE events_of_many_first PARTITION OF events_of_many'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', until);
END $$;
CREATE TABLE events_last PARTITION OF events DEFAULT;
CREATE TABLE events_of_many_last PARTITION OF events_of_many DEFAULT;

-- Append-only: UPDATE, DELETE and TRUNCATE fail, also on a partition that is addressed by its name.
-- Old rows are deleted by retention only, which sets `smsgateway.retention`, and only from the default
-- partitions.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND coalesce(current_setting('smsgateway.retention', true), '') = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$;

-- Adds the trigger to a table, and takes back rights that default privileges gave to the role of the
-- processes.
CREATE FUNCTION keep_append_only(events regclass, refused text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    holder text;
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS append_only ON %s', events);
    EXECUTE format('CREATE TRIGGER append_only BEFORE %s ON %s'
                   ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', refused, events);
    FOR holder IN
        SELECT DISTINCT a.grantee::regrole::text
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = events AND a.grantee NOT IN (c.relowner, 0)
    LOOP
        EXECUTE format('REVOKE %s ON %s FROM %s', replace(refused, ' OR ', ', '), events, holder);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION keep_append_only(regclass, text) FROM PUBLIC;

-- The role of the processes does not own the tables. What only an owner may do, making and dropping
-- partitions of events, is in two functions that run with the owner's rights and do nothing else.
CREATE FUNCTION make_partition(of_table text, name text, since uuid, until uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF of_table NOT IN ('events', 'events_of_many') OR name !~ ('^' || of_table || '_[0-9]{6}$') THEN
        RAISE EXCEPTION 'only events are partitioned, by the month'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING INDEXES)', name, of_table);
    PERFORM keep_append_only(name::regclass, 'UPDATE OR DELETE OR TRUNCATE');
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   of_table, name, since, until);
END $$;

CREATE FUNCTION drop_partition(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('events'::regclass, 'events_of_many'::regclass)
          AND c.relname = name AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
    ) THEN
        RAISE EXCEPTION 'only partitions of events are dropped, and not the last ones'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('DROP TABLE %I', name);
END $$;

-- A caller cannot make them use other tables with a `search_path` of its own.
DO $$
DECLARE
    of_owner regprocedure;
BEGIN
    FOREACH of_owner IN ARRAY ARRAY['keep_append_only(regclass, text)',
                                    'make_partition(text, text, uuid, uuid)',
                                    'drop_partition(text)']::regprocedure[]
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', of_owner, current_schema());
    END LOOP;
END $$;

SELECT keep_append_only(events, 'UPDATE OR DELETE OR TRUNCATE')
FROM unnest(ARRAY['events', 'events_first', 'events_of_many', 'events_of_many_first']::regclass[])
    AS events;
SELECT keep_append_only(events, 'UPDATE OR TRUNCATE')
FROM unnest(ARRAY['events_last', 'events_of_many_last']::regclass[]) AS events;
