"""Tables of messages cut by time (docs/decisions/0014-partitions-by-time.md).

Done beside the work: what is there becomes the first partition as it lies. A constraint that is
validated without a lock proves that its rows belong there, so that a table is locked only for the
moment in which it gets another name and a parent. Each step finds out whether it is done already, so
that the migration can be begun anew at any of them.

Revision ID: 0008
Revises: 0007
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from alembic import context, op
from sqlalchemy import text

from domain.partitions import PartitionWidth, cut_after, first_id_at

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# By what each is cut. Those of one line are cut together, since they share a sequence.
TABLES = (
    {"messages": "id"},
    {"attempts": "message_id"},
    {"parts": "message_id"},
    {"receipts": "day"},
    {"callback_events": "message_id"},
    {"events": "message_id", "events_of_many": "bulk_id"},
)

# Rows of the present must fit into the first partition until its parent is there, however long that
# takes, or is left undone.
AT_LEAST = timedelta(days=7)

# As those of before, which stay for processes that began before this migration. `low` and `high` are
# the first and the last of the messages: an array tells the planner nothing about partitions.
FOLDS = """
CREATE OR REPLACE FUNCTION attempt_folds(of_messages uuid[], low uuid, high uuid)
RETURNS TABLE (message_id uuid, number smallint, status text) STABLE LANGUAGE sql AS $$
    SELECT a.message_id, a.number, CASE
        WHEN bool_and(p.status = 'delivered') THEN 'delivered'
        WHEN bool_or(p.status = 'undelivered') THEN 'undelivered'
        WHEN bool_or(p.status = 'submitting') THEN 'submitting'
        WHEN a.expired THEN 'expired'
        WHEN bool_or(p.status = 'unknown') THEN 'unknown'
        WHEN bool_and(p.status IN ('accepted', 'delivered')) THEN 'accepted'
        WHEN bool_or(p.status IN ('accepted', 'delivered')) THEN 'partial'
        WHEN bool_or(p.status = 'refused') THEN 'refused'
        WHEN bool_or(p.status = 'throttled') THEN 'throttled'
        ELSE 'unreachable'
    END
    FROM attempts a LEFT JOIN parts p ON p.message_id = a.message_id AND p.attempt = a.number
                                     AND p.message_id = ANY(of_messages)
                                     AND p.message_id BETWEEN low AND high
    WHERE a.message_id = ANY(of_messages) AND a.message_id BETWEEN low AND high
    GROUP BY a.message_id, a.number, a.expired
$$;

CREATE OR REPLACE FUNCTION message_folds(of_messages uuid[], low uuid, high uuid)
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
        FROM attempts a WHERE a.message_id = m.id AND a.message_id BETWEEN low AND high
    ) tried
    WHERE m.id = ANY(of_messages) AND m.id BETWEEN low AND high
$$;

CREATE OR REPLACE FUNCTION check_folds() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched uuid[];
    low uuid;
    high uuid;
    wrong record;
BEGIN
    SELECT array_agg(DISTINCT each::uuid ORDER BY each::uuid) INTO touched
    FROM unnest(string_to_array(ltrim(current_setting('smsgateway.touched'), ','), ',')) AS each;
    low := touched[1];
    high := touched[cardinality(touched)];
    PERFORM set_config('smsgateway.touched', '', true);
    DELETE FROM fold_checks WHERE id = NEW.id;
    SELECT a.message_id, a.status, f.status AS folded INTO wrong
    FROM attempt_folds(touched, low, high) f
    JOIN attempts a ON a.message_id = f.message_id AND a.number = f.number
    WHERE a.message_id = ANY(touched) AND a.message_id BETWEEN low AND high
      AND a.status IS DISTINCT FROM f.status LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt of message % cannot be %: its parts make it %',
            wrong.message_id, wrong.status, wrong.folded USING ERRCODE = 'check_violation';
    END IF;
    SELECT m.id, m.status, f.status AS folded INTO wrong
    FROM message_folds(touched, low, high) f JOIN messages m ON m.id = f.id
    WHERE m.id = ANY(touched) AND m.id BETWEEN low AND high
      AND m.status IS DISTINCT FROM f.status LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'message % cannot be %: its attempts and verdict make it %',
            wrong.id, wrong.status, wrong.folded USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
"""

# Turns a table into the first partition of one of its name, with the same columns, constraints,
# indexes, triggers and rights; the last partition has no end, so that there is one for every row.
# Names of constraints and indexes pass to the new one. What counted its rows goes on counting: an
# identity cannot be shared with partitions before Postgres 17, hence the default.
CUT = """
CREATE FUNCTION pg_temp.cut(old_name text, by_column text, bound text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    old oid := old_name::regclass;
    first_name text := old_name || '_first';
    kept record;
    remade text[] := '{}';
    counted record;
    options text := coalesce((SELECT ' WITH (' || array_to_string(reloptions, ', ') || ')'
                              FROM pg_class WHERE oid = old), '');
BEGIN
    FOR kept IN SELECT tgname, pg_get_triggerdef(oid) AS made FROM pg_trigger
                WHERE tgrelid = old AND NOT tgisinternal ORDER BY tgname LOOP
        remade := remade || kept.made;
        EXECUTE format('DROP TRIGGER %I ON %I', kept.tgname, old_name);
    END LOOP;
    FOR kept IN SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS made,
                       c.conname, pg_get_constraintdef(c.oid) AS constrains
                FROM pg_index i LEFT JOIN pg_constraint c
                    ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
                WHERE i.indrelid = old ORDER BY i.indexrelid LOOP
        remade := remade || CASE WHEN kept.conname IS NULL THEN kept.made ELSE
            format('ALTER TABLE %I ADD CONSTRAINT %I %s', old_name, kept.conname, kept.constrains) END;
        EXECUTE format('ALTER INDEX %I RENAME TO %I', kept.name,
                       overlay(kept.name PLACING first_name FROM 1 FOR length(old_name)));
    END LOOP;
    FOR kept IN SELECT a.privilege_type AS allowed, a.is_grantable,
                       coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee
                FROM pg_class t CROSS JOIN LATERAL aclexplode(t.relacl) a
                LEFT JOIN pg_roles r ON r.oid = a.grantee
                WHERE t.oid = old AND a.grantee <> t.relowner LOOP
        remade := remade || format('GRANT %s ON %I TO %s%s', kept.allowed, old_name, kept.grantee,
                                   CASE WHEN kept.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    SELECT a.attname AS name, pg_get_serial_sequence(old_name, a.attname) AS sequence,
           nextval(pg_get_serial_sequence(old_name, a.attname)) AS next
    INTO counted
    FROM pg_attribute a WHERE a.attrelid = old AND a.attidentity <> '' AND NOT a.attisdropped;

    EXECUTE format('ALTER TABLE %I RENAME TO %I', old_name, first_name);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS '
                   'INCLUDING STORAGE INCLUDING COMPRESSION) PARTITION BY RANGE (%I)',
                   old_name, first_name, by_column);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', old_name, old_name || '_cut');
    -- Processes of the version before ask whether a receipt is new by its xmax, which Postgres gives
    -- only where the columns of a partition lie elsewhere than those of its parent.
    IF old_name = 'receipts' THEN
        ALTER TABLE receipts ADD COLUMN lies_elsewhere boolean;
        ALTER TABLE receipts DROP COLUMN lies_elsewhere;
    END IF;
    IF counted.name IS NOT NULL THEN
        IF old_name = 'events' THEN
            ALTER TABLE events_of_many ALTER COLUMN seq DROP DEFAULT;
            ALTER TABLE events_of_many_first ALTER COLUMN seq DROP DEFAULT;
            ALTER TABLE events_of_many_rest ALTER COLUMN seq DROP DEFAULT;
        END IF;
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP IDENTITY', first_name, counted.name);
        EXECUTE format('CREATE SEQUENCE %s START %s OWNED BY %I.%I',
                       counted.sequence, counted.next, old_name, counted.name);
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I SET DEFAULT nextval(%L)',
                       old_name, counted.name, counted.sequence);
        IF old_name = 'events' THEN
            ALTER TABLE events_of_many ALTER COLUMN seq SET DEFAULT nextval('events_seq_seq');
        END IF;
    END IF;
    FOR kept IN SELECT unnest(remade) AS made LOOP
        EXECUTE kept.made;
    END LOOP;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
                   old_name, first_name, bound);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', first_name, old_name || '_cut');
    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (MAXVALUE)%s',
                   old_name || '_rest', old_name, bound, options);
END $$
"""


# A vacuum lets go of its table when somebody has waited for it for a second, and that second must not
# be one in which all others wait, too: so it is sent away first, by a lock that hinders nobody else.
ALONE = """
    PERFORM set_config('lock_timeout', '10s', true);
    LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', '500ms', true);
    LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
"""

PROMISE = """
DO $$ BEGIN
    {alone}
    ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_cut;
    ALTER TABLE {table} ADD CONSTRAINT {table}_cut CHECK ({column} < '{bound}') NOT VALID;
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(FOLDS)
        op.execute("DROP FUNCTION IF EXISTS pg_temp.cut(text, text, text)")
        op.execute(CUT)
        for tables in TABLES:
            left = {table: column for table, column in tables.items() if not _is_cut(table)}
            bounds = {table: _promised(table, column) for table, column in left.items()}
            if "callback_events" in left:
                _give_callbacks_another_key()
            if left:
                _cut(left, bounds)


def _is_cut(table: str) -> bool:
    kind = text("SELECT relkind = 'p' FROM pg_class WHERE oid = CAST(:table AS regclass)")
    return bool(op.get_bind().scalar(kind, {"table": table}))


def _promised(table: str, column: str) -> str:
    """Have Postgres prove that all rows lie before a cut, and see to it that it stays so."""
    promised = text("""
        SELECT substring(pg_get_constraintdef(oid) FROM '''([^'']+)''') FROM pg_constraint
        WHERE conrelid = CAST(:table AS regclass) AND conname = :name
    """)
    found = op.get_bind().scalar(promised, {"table": table, "name": f"{table}_cut"})
    now = datetime.now(UTC)
    if found is None or found < _bound(column, now + timedelta(days=1)):
        width = context.config.attributes.get("partition_width", PartitionWidth.MONTH)
        found = _bound(column, cut_after(now + AT_LEAST, width))
        op.execute(
            PROMISE.format(
                alone=ALONE.format(tables=table), table=table, column=column, bound=found
            )
        )
    op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_cut")
    return str(found)


def _bound(column: str, cut: datetime) -> str:
    return cut.date().isoformat() if column == "day" else str(first_id_at(cut))


def _give_callbacks_another_key() -> None:
    """The key of a partitioned table has to hold what it is cut by."""
    columns = op.get_bind().scalar(
        text("SELECT indnatts FROM pg_index WHERE indexrelid = 'callback_events_pkey'::regclass")
    )
    if columns == 1:
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS callback_events_key")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY callback_events_key"
            " ON callback_events (id, message_id)"
        )
        op.execute(f"""
DO $$ BEGIN
    {ALONE.format(tables="callback_events")}
    ALTER TABLE callback_events DROP CONSTRAINT callback_events_pkey;
    ALTER TABLE callback_events
        ADD CONSTRAINT callback_events_pkey PRIMARY KEY USING INDEX callback_events_key;
END $$
""")


def _cut(tables: Mapping[str, str], bounds: Mapping[str, str]) -> None:
    alone = ALONE.format(tables=", ".join(tables))
    cuts = "; ".join(
        f"PERFORM pg_temp.cut('{table}', '{column}', '{bounds[table]}')"
        for table, column in reversed(list(tables.items()))
    )
    op.execute(f"""
DO $$ BEGIN
    {alone}
    {cuts};
END $$
""")
