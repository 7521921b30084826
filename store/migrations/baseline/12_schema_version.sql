-- Only migrations write the schema version. Default privileges gave the role of the processes the
-- right to do so; it is taken back.
DO $$
DECLARE
    holder text;
BEGIN
    FOR holder IN
        SELECT DISTINCT a.grantee::regrole::text
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'alembic_version'::regclass AND a.grantee NOT IN (c.relowner, 0)
    LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM %s', holder);
    END LOOP;
END $$;
