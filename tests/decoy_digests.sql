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
REVOKE ALL ON FUNCTION balise.decoy_digests(bytea) FROM PUBLIC;
