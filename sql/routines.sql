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
CREATE OR REPLACE FUNCTION balise.decoy_digests(key bytea) RETURNS TABLE (recipient name, number integer, digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    IF octet_length(key) < 32 THEN
        RAISE EXCEPTION 'the key of the digests is too short' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR found IN
        SELECT DISTINCT s.oid::regclass AS stored, d.oid::regclass AS decoys, a.attname AS column_name,
               -- rows that were put there by hand are of no decoy in the book
               CASE WHEN EXISTS (SELECT FROM pg_attribute AS o
                                  WHERE o.attrelid = d.oid AND o.attname = 'balise_decoy' AND NOT o.attisdropped)
                    THEN '(SELECT b.number FROM balise.decoy AS b WHERE b.decoy_id = d.balise_decoy)'
                    ELSE 'NULL::integer' END AS number
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
            SELECT DISTINCT f.recipient, f.number,
                   substr(sha256($1 || CASE WHEN f.short THEN convert_to(%L, 'UTF8') || '\x00' ELSE '' END
                                    || convert_to(f.value, 'UTF8')), 1, 16)
              FROM (SELECT t.recipient, t.number, t.value, t.value ~ '^[0-9]{1,8}$' AS short
                      FROM (SELECT l.recipient, l.number,
                                   regexp_replace(l.value, '^(-?)0+(?=[0-9]+$)', '\1') AS value
                              FROM (SELECT d.balise_recipient AS recipient, %s AS number,
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
            $query$, found.column_name, found.number, found.column_name, found.decoys, found.stored,
            found.column_name, found.column_name) USING key;
    END LOOP;
    -- in canonical form, told apart from values by a byte that no value begins with; a short number is
    -- known by its column only
    RETURN QUERY
        SELECT d.role_name, d.number, substr(sha256($1 || '\x01'::bytea || convert_to(t.value, 'UTF8')), 1, 16)
          FROM balise.decoy_trait AS t JOIN balise.decoy AS d USING (decoy_id)
         WHERE NOT (t.kind = 'record' AND t.value ~ '^[0-9]{1,8}$');
END
$$;
COMMENT ON FUNCTION balise.decoy_digests(bytea) IS 'Keyed digests of the decoys'' identities: what tells the proxy that somebody asks for one';

-- fold() of pgbalise/decoys/traits.py: words of small ASCII letters and digits, one space between
-- them. Marks that change a letter go; where the encoding is not UTF-8, letters with an accent
-- of the Western sets are known.
CREATE OR REPLACE FUNCTION balise.fold(written text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    plain text COLLATE "C" := written;
BEGIN
    IF plain ~ '[^\x01-\x7f]' THEN
        IF getdatabaseencoding() = 'UTF8' THEN
            plain := regexp_replace(plain, '[\u0153\u0152]', 'oe', 'g');
            plain := regexp_replace(plain, '[\u00e6\u00c6]', 'ae', 'g');
            plain := regexp_replace(plain, '[\u00df\u1e9e]', 'ss', 'g');
            plain := translate(plain, chr(248) || chr(216) || chr(273) || chr(272) || chr(322) || chr(321), 'ooddll');
            plain := regexp_replace(normalize(plain, NFKD),
                '[\u0300-\u034e\u0350-\u036f\u0483-\u0487\u1ab0-\u1abd\u1abf-\u1ace\u1dc0-\u1dff\u20d0-\u20dc\u20e1\u20e5-\u20f0\ufe20-\ufe2f]',
                '', 'g');
        ELSIF getdatabaseencoding() IN ('LATIN1', 'LATIN9', 'WIN1252') THEN
            plain := translate(plain, (SELECT string_agg(chr(n), '' ORDER BY n) FROM generate_series(192, 255) AS n),
                'aaaaaa'  || chr(198) || 'ceeeeiiii nooooo ouuuuy ' || chr(223)
                || 'aaaaaa' || chr(198) || 'ceeeeiiii nooooo ouuuuy y');
            plain := replace(replace(plain, chr(198), 'ae'), chr(223), 'ss');
            IF getdatabaseencoding() = 'LATIN9' THEN
                plain := replace(replace(plain, chr(188), 'oe'), chr(189), 'oe');
                plain := translate(plain, chr(190) || chr(166) || chr(168) || chr(180) || chr(184), 'ysszz');
            ELSIF getdatabaseencoding() = 'WIN1252' THEN
                plain := replace(replace(plain, chr(140), 'oe'), chr(156), 'oe');
                plain := translate(plain, chr(159) || chr(138) || chr(154) || chr(142) || chr(158), 'ysszz');
            END IF;
        END IF;
    END IF;
    RETURN btrim(regexp_replace(lower(plain), '[^0-9a-z]+', ' ', 'g'));
END
$$;
COMMENT ON FUNCTION balise.fold(text) IS 'Words of ASCII small letters and digits: no accents, no case, no punctuation';

-- What of a text may be a decoy's trait, in canonical form; pgbalise/decoys/candidates.py has the
-- same rules. Numbers may be spread over words that follow each other.
CREATE OR REPLACE FUNCTION balise.candidates(written text, OUT texts text[], OUT born text[], OUT words text[])
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    words := string_to_array(balise.fold(written), ' ');
    WITH word AS MATERIALIZED (
        SELECT w.word AS w0, cardinality(words) AS total,
               lead(w.word, 1) OVER following AS w1, lead(w.word, 2) OVER following AS w2,
               lead(w.word, 3) OVER following AS w3, lead(w.word, 4) OVER following AS w4,
               lead(w.word, 5) OVER following AS w5, lead(w.word, 6) OVER following AS w6,
               lead(w.word, 7) OVER following AS w7
          FROM (SELECT u.word COLLATE "C" AS word, u.at FROM unnest(words) WITH ORDINALITY AS u(word, at)) AS w
        WINDOW following AS (ORDER BY w.at)
    ), run AS MATERIALIZED (
        -- words that begin with a digit come before a colon
        SELECT r.size, r.run COLLATE "C" AS run, r.size = word.total AS whole
          FROM word, LATERAL (VALUES (1, w0), (2, w0 || w1), (3, w0 || w1 || w2)) AS r(size, run)
         WHERE length(r.run) BETWEEN 5 AND 40 AND r.run ~ '[0-9]'
        UNION ALL
        SELECT r.size, r.run COLLATE "C", r.size = word.total
          FROM word, LATERAL (VALUES (4, w0 || w1 || w2 || w3),
                   (5, CASE WHEN w4 < ':' THEN w0 || w1 || w2 || w3 || w4 END),
                   (6, CASE WHEN w4 < ':' AND w5 < ':' THEN w0 || w1 || w2 || w3 || w4 || w5 END),
                   (7, CASE WHEN w4 < ':' AND w5 < ':' AND w6 < ':' THEN w0 || w1 || w2 || w3 || w4 || w5 || w6 END),
                   (8, CASE WHEN w4 < ':' AND w5 < ':' AND w6 < ':' AND w7 < ':'
                            THEN w0 || w1 || w2 || w3 || w4 || w5 || w6 || w7 END)) AS r(size, run)
         WHERE w0 < ':' AND w1 < ':' AND w2 < ':' AND w3 < ':' AND length(r.run) BETWEEN 5 AND 40
    ), value(value) AS (
        SELECT upper(run) FROM run
         WHERE size = 1 OR whole OR size <= 3 AND run ~ '[a-z]' OR length(run) >= 9 AND run ~ '^[0-9]+$'
        UNION
        SELECT upper(left(run, 13)) FROM run
         WHERE length(run) IN (13, 15) AND run ~ '^[1-478][0-9]{4}([0-9]{2}|2[ab])[0-9]{6}([0-9]{2})?$'
        UNION
        SELECT '+33' || right(run, 9) FROM run
         WHERE length(run) BETWEEN 10 AND 14 AND run < '4' AND run ~ '^((00)?330?|0)[1-9][0-9]{8}$'
        UNION
        SELECT lower(rtrim(m[1], '.')) FROM regexp_matches(CASE WHEN strpos(written, '@') > 0 THEN written ELSE '' END,
            '([!-;=?A-~]+@[!-;=?A-~]+\.[!-;=?A-~]+)', 'g') AS m
        UNION
        SELECT lower(rtrim(m[1], '.')) FROM regexp_matches(CASE WHEN strpos(written, '@') > 0 THEN written ELSE '' END,
            '([!#$%&*+./0-9?A-Z^_`a-z~-]+@[!#$%&*+./0-9?A-Z^_`a-z~-]+\.[!#$%&*+./0-9?A-Z^_`a-z~-]+)', 'g') AS m
    ), written_date(y, m, d) AS (
        SELECT w0, w1, w2 FROM word WHERE length(w0) = 4 AND w2 < ':' AND w0 ~ '^[0-9]{4}$'
        UNION ALL SELECT w2, w1, w0 FROM word
         WHERE w0 < ':' AND w2 < ':' AND length(w2) IN (2, 4) AND w2 ~ '^[0-9]+$'
        UNION ALL SELECT left(w0, 4), substr(w0, 5, 2), right(w0, 2) FROM word
         WHERE length(w0) = 8 AND w0 ~ '^[0-9]{8}$'
        UNION ALL SELECT right(w0, 4), substr(w0, 3, 2), left(w0, 2) FROM word
         WHERE length(w0) = 8 AND w0 ~ '^[0-9]{8}$'
    ), parts(y, m, d) AS (
        SELECT y, CASE WHEN m ~ '^[0-9]{1,2}$' THEN m::integer
                       WHEN m ~ '^[a-z]' THEN (SELECT n FROM (VALUES (1, '^jan'), (2, '^fe[vb]'), (3, '^mar'),
                            (4, '^a[vp]r'), (5, '^ma[iy]'), (6, '^jui?n'), (7, '^jui?l'), (8, '^a(ou|ug)'), (9, '^sep'),
                            (10, '^oct'), (11, '^nov'), (12, '^dec')) AS months(n, begins) WHERE m ~ begins) END,
               substring(d FROM '^([0-9]{1,2})(?:er|st|nd|rd|th|t[0-9]+)?$')::integer
          FROM written_date
    )
    SELECT (SELECT array_agg(value ORDER BY value) FROM value),
           (SELECT array_agg(DISTINCT century || p.y || to_char(p.m, '"-"FM00') || to_char(p.d, '"-"FM00'))
              FROM parts AS p, unnest(CASE WHEN length(p.y) = 2 THEN ARRAY['19', '20'] ELSE ARRAY[''] END) AS century
             WHERE p.m BETWEEN 1 AND 12 AND p.d BETWEEN 1 AND 31)
      INTO texts, born;
END
$$;
COMMENT ON FUNCTION balise.candidates(text) IS 'What of a text may be a decoy''s trait: numbers and addresses, dates, words';

-- Says nothing to whoever calls, whatever it finds: an answer would tell decoys from patients.
CREATE OR REPLACE FUNCTION balise.check(written text) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET client_min_messages = error AS $$
DECLARE
    looked record;
    day text;
    ids bigint[];
    people bigint[];
    by_what text[];
    decoys text;
    lost text := '';
    shown text := current_setting('log_min_error_statement');
BEGIN
    -- a whole file in a column must not keep a transaction for minutes
    looked := balise.candidates(left(written, 1000000));
    SELECT array_agg(DISTINCT t.decoy_id), array_agg(DISTINCT t.kind) INTO ids, by_what
      FROM balise.decoy_trait AS t WHERE t.value = ANY (looked.texts);
    FOREACH day IN ARRAY coalesce(looked.born, '{}') LOOP
        SELECT array_agg(t.decoy_id) INTO people
          FROM balise.decoy_trait AS t
         WHERE t.value > day || ' ' AND t.value < day || '!' AND t.kind = 'person'
           AND string_to_array(substr(t.value, 12), ' ') <@ looked.words;
        IF people IS NOT NULL THEN
            ids := ids || people;
            by_what := by_what || 'person'::text;
        END IF;
    END LOOP;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT i) INTO ids FROM unnest(ids) AS i;
    SELECT array_agg(DISTINCT k) INTO by_what FROM unnest(by_what) AS k;
    BEGIN
        -- the same again within the hour is the same event
        INSERT INTO balise.tripwire (role_name, client, application_name, decoy_ids, kinds)
        SELECT session_user, inet_client_addr(), current_setting('application_name'), ids, by_what
         WHERE NOT EXISTS (
             SELECT FROM balise.tripwire AS e
              WHERE e.role_name = session_user AND e.at > now() - interval '1 hour' AND e.decoy_ids = ids
                AND e.client IS NOT DISTINCT FROM inet_client_addr());
    EXCEPTION WHEN OTHERS THEN
        lost := ' unrecorded=' || sqlstate;
    END;
    SELECT string_agg(d.role_name || '/' || d.number, ',' ORDER BY d.role_name, d.number) INTO decoys
      FROM balise.decoy AS d WHERE d.decoy_id = ANY (ids);
    BEGIN
        -- the log must not quote the statement, which may hold what was asked for
        PERFORM set_config('log_min_error_statement', 'panic', true);
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    -- a rollback takes the event back; the log keeps its line
    RAISE LOG 'pgbalise tripwire decoys=% kinds=% role=% client=%', decoys, array_to_string(by_what, ','),
        quote_ident(session_user), coalesce(host(inet_client_addr()), 'local') || lost;
    IF current_setting('log_min_error_statement') <> shown THEN
        PERFORM set_config('log_min_error_statement', shown, true);
    END IF;
END
$$;
COMMENT ON FUNCTION balise.check(text) IS 'Raises an alert when a text holds a decoy''s identity; tells its caller nothing';

CREATE OR REPLACE FUNCTION balise.check_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM balise.check((SELECT string_agg(f.value, E'\n') FROM jsonb_each_text(to_jsonb(new)) AS f));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION balise.check_row() IS 'For a trigger AFTER INSERT OR UPDATE ... FOR EACH ROW: balise.check() of what the row holds';

CREATE OR REPLACE FUNCTION balise.tripwires(most integer)
RETURNS TABLE (event_id bigint, at timestamptz, role_name name, client inet, application_name text, decoys text[], kinds text[])
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT e.event_id, e.at, e.role_name, e.client, e.application_name,
       ARRAY(SELECT d.role_name || '/' || d.number FROM balise.decoy AS d
              WHERE d.decoy_id = ANY (e.decoy_ids) ORDER BY d.role_name, d.number),
       e.kinds
  FROM balise.tripwire AS e
 WHERE e.relayed_at IS NULL
 ORDER BY e.event_id
 LIMIT most
   FOR UPDATE OF e SKIP LOCKED
$$;
COMMENT ON FUNCTION balise.tripwires(integer) IS 'The events that nobody was told of yet, locked until the transaction ends';

CREATE OR REPLACE FUNCTION balise.tripwires_told(event_ids bigint[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
UPDATE balise.tripwire AS e SET relayed_at = now() WHERE e.event_id = ANY ($1) AND e.relayed_at IS NULL
$$;
COMMENT ON FUNCTION balise.tripwires_told(bigint[]) IS 'Notes that events are on their way to those who must know';

CREATE OR REPLACE FUNCTION balise.decoys_issued() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT count(*) || ' ' || coalesce(max(d.decoy_id), 0) FROM balise.decoy AS d
$$;
COMMENT ON FUNCTION balise.decoys_issued() IS 'Changes when decoys were issued: the proxy then reads their digests again';

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
