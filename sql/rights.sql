-- Who may do what; the last part of every install and update.

-- Whatever ALTER DEFAULT PRIVILEGES says, nobody has a privilege here but who is given one below.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT a.grantee, c.relowner AS owner,
               CASE WHEN c.relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
               pg_catalog.format('balise.%I', c.relname) AS name
          FROM pg_catalog.pg_class AS c,
               pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS a
         WHERE c.relnamespace = 'balise'::regnamespace AND c.relkind IN ('r', 'S')
        UNION
        SELECT a.grantee, p.proowner, 'FUNCTION', p.oid::regprocedure::text
          FROM pg_catalog.pg_proc AS p,
               pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
         WHERE p.pronamespace = 'balise'::regnamespace AND p.proname <> 'refuse'
    LOOP
        CONTINUE WHEN granted.grantee = granted.owner;
        EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', granted.kind, granted.name,
            CASE WHEN granted.grantee = 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION balise.refuse() FROM PUBLIC;
REVOKE ALL ON SCHEMA balise FROM PUBLIC;

GRANT USAGE ON SCHEMA balise TO balise_owner, balise_admin, balise_auditor, balise_proxy;
GRANT SELECT ON balise.relation_secret, balise.codeword TO balise_owner;
GRANT SELECT ON balise.policy, balise.epoch, balise.relation, balise.marked_view, balise.recipient,
    balise.commitment TO balise_admin, balise_auditor;
GRANT SELECT ON balise.policy, balise.epoch, balise.relation, balise.marked_view, balise.recipient
    TO balise_proxy;
GRANT SELECT ON balise.decoy, balise.decoy_trait TO balise_auditor;
GRANT EXECUTE ON FUNCTION balise.version() TO balise_admin, balise_auditor, balise_proxy;
GRANT EXECUTE ON FUNCTION balise.decoy_digests(bytea) TO balise_proxy;

DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        SELECT p.oid::regprocedure AS signature, m.role_name
          FROM (VALUES ('mark_column', 'balise_admin'), ('unmark_column', 'balise_admin'),
                       ('apply', 'balise_admin'), ('refresh_views', 'balise_admin'),
                       ('open_epoch', 'balise_admin'), ('enrol', 'balise_admin'),
                       ('revoke', 'balise_admin'), ('make_decoys', 'balise_admin'),
                       ('retire_decoys', 'balise_admin'), ('trace', 'balise_auditor'),
                       ('load_library', 'balise_auditor'), ('python_path', 'balise_auditor'))
               AS m(function_name, role_name)
          JOIN pg_catalog.pg_proc AS p ON p.proname = m.function_name
         WHERE p.pronamespace = 'balise'::regnamespace
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', allowed.signature, allowed.role_name);
    END LOOP;
END
$$;
