-- Functions that need no PL/Python, the event triggers, and who may do what. Run at every install
-- and at every update.

CREATE OR REPLACE FUNCTION balise.version() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '0.2.0'::text $$;
COMMENT ON FUNCTION balise.version() IS 'The version of this catalog';

-- Functions in a view run with the caller's rights, so recipients may call this one. It knows nothing.
CREATE OR REPLACE FUNCTION balise.refuse() RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'role % is not enrolled as a recipient of this relation', quote_ident(session_user)
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Ask the database administrator to enrol it with balise.enrol().';
END
$$;
COMMENT ON FUNCTION balise.refuse() IS 'Refuses a session user who is not enrolled';

-- Fires for everyone's ALTER and DROP, so it reads the catalog with its owner's rights.
CREATE OR REPLACE FUNCTION balise.keep_in_step() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed record;
    lost text;
BEGIN
    IF tg_event = 'sql_drop' THEN
        SELECT CASE WHEN d.objsubid > 0
                    THEN format('column %I of %I.%I', d.address_names[3], r.schema_name, r.relation_name)
                    ELSE format('%I.%I', r.schema_name, r.relation_name) END
          INTO lost
          FROM pg_event_trigger_dropped_objects() AS d
          JOIN balise.relation AS r
            ON r.schema_name = d.address_names[1] AND r.relation_name = d.address_names[2]
         WHERE d.classid = 'pg_class'::regclass
           AND (d.objsubid = 0 OR d.address_names[3] = ANY (r.needed_columns))
           -- whose marked views were dropped before, by their name, nothing rests on it any more:
           -- so pg_restore --clean goes
           AND EXISTS (
               SELECT FROM balise.marked_view AS v
                WHERE v.relation_id = r.relation_id
                  AND (to_regclass(format('%I.%I', v.schema_name, v.view_name)) IS NOT NULL
                       OR EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS o
                                   WHERE o.classid = 'pg_class'::regclass AND o.objsubid = 0
                                     AND o.address_names[1] = v.schema_name
                                     AND o.address_names[2] = v.view_name)))
         LIMIT 1;
        IF lost IS NOT NULL THEN
            RAISE EXCEPTION 'the policy in force rests on %', lost
                USING ERRCODE = 'dependent_objects_still_exist',
                      HINT = 'Take the relation out of the policy and apply that first (pgbalise policy apply).';
        END IF;
        -- views that went with a type or a function; ALTER TABLE's come back at its end
        FOR changed IN
            SELECT DISTINCT format('%I.%I', r.schema_name, r.relation_name) AS name,
                   to_regclass(format('%I.%I', r.schema_name, r.relation_name)) AS base
              FROM pg_event_trigger_dropped_objects() AS d
              JOIN balise.marked_view AS v
                ON v.schema_name = d.address_names[1] AND v.view_name = d.address_names[2]
              JOIN balise.relation AS r USING (relation_id)
             WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND NOT d.original
               AND tg_tag <> 'ALTER TABLE'
        LOOP
            CONTINUE WHEN changed.base IS NULL;
            PERFORM balise.write_again(changed.base, changed.name);
        END LOOP;
        RETURN;
    END IF;

    FOR changed IN
        WITH RECURSIVE touched(oid) AS (
            SELECT coalesce(c.oid, d.objid)
              FROM pg_event_trigger_ddl_commands() AS d
              LEFT JOIN pg_class AS c
                ON d.classid = 'pg_namespace'::regclass AND c.relnamespace = d.objid
             WHERE d.classid = ANY (ARRAY['pg_class'::regclass, 'pg_namespace'::regclass])
               AND d.schema_name IS DISTINCT FROM 'balise_decoy'
            UNION
            SELECT i.inhrelid FROM touched AS t JOIN pg_inherits AS i ON i.inhparent = t.oid
        ), found(relation_id) AS (
            SELECT r.relation_id
              FROM touched AS t
              JOIN pg_class AS c ON c.oid = t.oid
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
              JOIN balise.relation AS r ON r.schema_name = n.nspname AND r.relation_name = c.relname
            UNION
            -- by its marked view, when it no longer goes by its name
            SELECT v.relation_id
              FROM touched AS t
              JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
              JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
              JOIN pg_class AS c ON c.oid = w.ev_class
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
              JOIN balise.marked_view AS v ON v.schema_name = n.nspname AND v.view_name = c.relname
        )
        SELECT r.relation_id, r.needed_columns, format('%I.%I', r.schema_name, r.relation_name) AS name,
               to_regclass(format('%I.%I', r.schema_name, r.relation_name)) AS base
          FROM found JOIN balise.relation AS r USING (relation_id)
    LOOP
        lost := CASE WHEN changed.base IS NULL THEN changed.name ELSE (
            SELECT format('column %I of %s', c.name, changed.name)
              FROM unnest(changed.needed_columns) AS c(name)
             WHERE NOT EXISTS (
                       SELECT FROM pg_attribute AS a
                        WHERE a.attrelid = changed.base AND a.attname = c.name AND NOT a.attisdropped)
             LIMIT 1) END;
        IF lost IS NOT NULL THEN
            RAISE EXCEPTION 'the policy in force rests on the name of %', lost
                USING ERRCODE = 'dependent_objects_still_exist',
                      HINT = 'Take the relation out of the policy, apply, rename, and put it back under its new name.';
        END IF;
        IF balise.in_step(changed.relation_id) THEN
            CONTINUE;
        END IF;
        PERFORM balise.write_again(changed.base, changed.name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION balise.keep_in_step() IS 'Lets no ALTER or DROP take away what the policy rests on; shows new columns in the marked views';

CREATE OR REPLACE FUNCTION balise.in_step(relation_id integer) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT coalesce(bool_and(shown.names IS NOT DISTINCT FROM stored.names), false)
  FROM balise.relation AS r
  JOIN balise.marked_view AS v USING (relation_id),
       LATERAL (SELECT array_agg(a.attname ORDER BY a.attnum) AS names FROM pg_attribute AS a
                 WHERE a.attrelid = to_regclass(format('%I.%I', r.schema_name, r.relation_name))
                   AND a.attnum > 0 AND NOT a.attisdropped) AS stored,
       LATERAL (SELECT array_agg(a.attname ORDER BY a.attnum) AS names FROM pg_attribute AS a
                 WHERE a.attrelid = to_regclass(format('%I.%I', v.schema_name, v.view_name))
                   AND a.attnum > 0 AND NOT a.attisdropped) AS shown
 WHERE r.relation_id = $1
$$;
COMMENT ON FUNCTION balise.in_step(integer) IS 'Whether the marked views of a relation show all its columns';

CREATE OR REPLACE FUNCTION balise.write_again(base regclass, name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE 'SELECT balise.refresh_views($1)' USING base;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'the marked views of % do not show its columns as they are now', name
        USING DETAIL = sqlerrm, HINT = 'Run: pgbalise policy refresh.';
END
$$;
COMMENT ON FUNCTION balise.write_again(regclass, text) IS 'Writes the marked views of a relation again, or warns that they must be';

-- Reads decoys and stored rows with its owner's rights, and hands out keyed digests only. Who may call it
-- can try whether a guess is a decoy: it is the proxy's alone.
CREATE OR REPLACE FUNCTION balise.decoy_digests(key bytea) RETURNS TABLE (recipient name, digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    IF octet_length(key) < 32 THEN
        RAISE EXCEPTION 'the key of the digests is too short' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR found IN
        SELECT DISTINCT s.oid::regclass AS stored, d.oid::regclass AS decoys, a.attname AS column_name
          FROM balise.relation AS r
          JOIN balise.marked_view AS v USING (relation_id)
          JOIN pg_class AS s ON s.oid = to_regclass(format('%I.%I', r.schema_name, r.relation_name))
          JOIN pg_class AS d ON d.oid = to_regclass(format('balise_decoy.%I', v.view_name))
          JOIN pg_attribute AS a ON a.attrelid = d.oid AND a.attnum > 0 AND NOT a.attisdropped
          JOIN pg_attribute AS b ON b.attrelid = s.oid AND b.attname = a.attname AND b.atttypid = a.atttypid
         WHERE d.relkind = 'r' AND a.attname <> 'balise_recipient'
           -- types of the server's own: no conversion and no comparison runs anybody's code
           AND (a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'uuid'::regtype)
                -- numbers identify where they are keys or refer to one
                OR a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
               AND (EXISTS (SELECT FROM pg_index AS u
                             WHERE u.indrelid = s.oid AND u.indisunique AND b.attnum = ANY (u.indkey))
                    OR EXISTS (SELECT FROM pg_constraint AS f
                                WHERE f.conrelid = s.oid AND f.contype = 'f' AND b.attnum = ANY (f.conkey))))
    LOOP
        -- what a stored row has as well tells nobody apart
        RETURN QUERY EXECUTE format($query$
            SELECT DISTINCT f.recipient,
                   substr(sha256($1 || CASE WHEN f.short THEN convert_to(%L, 'UTF8') || '\x00' ELSE '' END
                                    || convert_to(f.value, 'UTF8')), 1, 16)
              FROM (SELECT t.recipient, t.value, t.value ~ '^[0-9]{1,8}$' AS short
                      FROM (SELECT l.recipient,
                                   regexp_replace(l.value, '^(-?)0+(?=[0-9]+$)', '\1') AS value
                              FROM (SELECT d.balise_recipient AS recipient,
                                           translate(btrim(d.%I::text, E' \t\n\r\x0b\x0c'),
                                                     'ABCDEFGHIJKLMNOPQRSTUVWXYZ',
                                                     'abcdefghijklmnopqrstuvwxyz') COLLATE "C" AS value
                                      FROM %s AS d
                                     WHERE NOT EXISTS (SELECT FROM %s AS s WHERE s.%I = d.%I)) AS l) AS t
                     WHERE t.value ~ '^[0-9]+$|^-[0-9]{8,}$'
                        OR octet_length(convert_to(t.value, 'UTF8')) BETWEEN 6 AND 200
                       AND t.value ~ '[0-9@]'
                       AND t.value !~ '^-?[0-9]+$'
                       AND t.value !~ '^[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}([^0-9].*)?$|^-?[0-9]*[.,][0-9]+$'
                   ) AS f
            $query$, found.column_name, found.column_name, found.decoys, found.stored,
            found.column_name, found.column_name) USING key;
    END LOOP;
END
$$;
COMMENT ON FUNCTION balise.decoy_digests(bytea) IS 'Keyed digests of the decoys'' identities: what tells the proxy that somebody asks for one';

-- Event triggers belong to superusers; without one, doctor tells what the views are missing.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = 'balise_keep_in_step') THEN
        CREATE EVENT TRIGGER balise_keep_in_step ON ddl_command_end
            WHEN TAG IN ('ALTER TABLE', 'ALTER SCHEMA', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE')
            EXECUTE FUNCTION balise.keep_in_step();
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = 'balise_refuse_drop') THEN
        CREATE EVENT TRIGGER balise_refuse_drop ON sql_drop EXECUTE FUNCTION balise.keep_in_step();
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$$;
