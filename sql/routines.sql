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
