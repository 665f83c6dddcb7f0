-- The catalog of 0.1.0 becomes that of 0.2.0: epochs with their keys, a commitment for each epoch,
-- views as written, roles for administration and audit.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['balise_owner', 'balise_admin', 'balise_auditor', 'balise_proxy',
                                  'balise_tripwire'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    -- somebody may have made it beforehand, to become what the marked views read with
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'balise_owner'
                  AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolbypassrls OR rolreplication)) THEN
        RAISE EXCEPTION 'role balise_owner is there already, and may do more than own the marked views'
            USING HINT = 'Find out who made it; then DROP ROLE, or ALTER ROLE balise_owner NOLOGIN '
                'NOSUPERUSER NOCREATEROLE NOBYPASSRLS NOREPLICATION, and look at its members.';
    END IF;
END
$$;

-- pg_restore --jobs loads an extension's tables in any order, with their constraints already there
ALTER TABLE balise.relation_secret DROP CONSTRAINT relation_secret_relation_id_fkey;
ALTER TABLE balise.codeword DROP CONSTRAINT codeword_role_name_class_fkey;

CREATE TABLE balise.epoch (
    epoch integer PRIMARY KEY,
    key_fingerprint text,
    opened_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE balise.epoch IS 'Every epoch opened, and the master key it marks with; the last one is in force';
-- 0.1.0 did not write down which key it was: the first apply or enrolment does
INSERT INTO balise.epoch (epoch, opened_at)
SELECT epoch, min(since)
  FROM (SELECT epoch, enrolled_at FROM balise.recipient
        UNION ALL
        SELECT coalesce((document ->> 'epoch')::integer, 1), applied_at
          FROM balise.policy WHERE applied_at IS NOT NULL) AS known(epoch, since)
 GROUP BY epoch;
-- the same document, its epoch said aloud
UPDATE balise.policy SET document = jsonb_build_object('epoch', 1) || document
 WHERE applied_at IS NOT NULL;

ALTER TABLE balise.relation
    ADD COLUMN column_names name[] NOT NULL DEFAULT '{}',
    ADD COLUMN needed_columns name[] NOT NULL DEFAULT '{}';
COMMENT ON TABLE balise.relation IS 'The protected relations, their columns when the policy was applied, and those it rests on';
UPDATE balise.relation AS r
   SET column_names = ARRAY(
           SELECT a.attname FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', r.schema_name, r.relation_name))
              AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY a.attnum),
       needed_columns = ARRAY(
           SELECT DISTINCT n.name::name COLLATE "C"
             FROM (SELECT document -> 'relation' AS tables FROM balise.policy
                    WHERE applied_at IS NOT NULL ORDER BY version DESC LIMIT 1) AS p,
                  LATERAL jsonb_each(p.tables) AS t(name, body),
                  LATERAL (
                      SELECT jsonb_object_keys(t.body -> 'key')
                      UNION SELECT jsonb_object_keys(t.body -> 'carrier')
                      UNION SELECT jsonb_object_keys(c.body -> 'entity')
                              FROM jsonb_each(t.body -> 'carrier') AS c(name, body)
                      UNION SELECT jsonb_object_keys(c.body -> 'by')
                              FROM jsonb_each(t.body -> 'carrier') AS c(name, body)
                  ) AS n(name)
            WHERE parse_ident(t.name) = ARRAY[r.schema_name::text, r.relation_name::text]
            ORDER BY 1);

CREATE TABLE balise.marked_view (
    schema_name name NOT NULL,
    view_name name NOT NULL,
    relation_id integer NOT NULL,
    definition_hash bytea NOT NULL,
    PRIMARY KEY (schema_name, view_name)
);
COMMENT ON TABLE balise.marked_view IS 'The marked views as written, each with the SHA-256 of pg_get_viewdef()';
CREATE INDEX marked_view_relation_id ON balise.marked_view (relation_id);
-- a definition is printed with the names that the search path leaves out
SET LOCAL search_path = pg_catalog, pg_temp;
INSERT INTO balise.marked_view (schema_name, view_name, relation_id, definition_hash)
SELECT v.nspname, c.relname, r.relation_id, sha256(convert_to(pg_get_viewdef(c.oid), 'UTF8'))
  FROM balise.relation AS r,
       LATERAL (SELECT document FROM balise.policy
                 WHERE applied_at IS NOT NULL ORDER BY version DESC LIMIT 1) AS p,
       LATERAL jsonb_each(p.document -> 'relation') AS t(name, body),
       LATERAL (VALUES (coalesce(p.document -> 'views' ->> 'secondary', 'marked')),
                       (coalesce(p.document -> 'views' ->> 'care', 'marked_care'))) AS s(name)
  JOIN pg_catalog.pg_namespace AS v ON v.nspname = s.name
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = v.oid AND c.relkind = 'v'
 WHERE parse_ident(t.name) = ARRAY[r.schema_name::text, r.relation_name::text]
   AND c.relname = coalesce(t.body ->> 'view', r.relation_name);

CREATE TABLE balise.commitment (
    role_name name,
    epoch integer,
    commitment bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role_name, epoch)
);
COMMENT ON TABLE balise.commitment IS 'The commitment to each codeword that a recipient ever had, one for each epoch';
INSERT INTO balise.commitment (role_name, epoch, commitment, made_at)
SELECT role_name, epoch, commitment, enrolled_at FROM balise.recipient;
ALTER TABLE balise.recipient DROP COLUMN epoch, DROP COLUMN commitment;
COMMENT ON TABLE balise.recipient IS 'Every recipient ever enrolled';
COMMENT ON TABLE balise.codeword IS 'Secret: the stored word of each recipient who is not revoked, in the epoch in force';

CREATE TABLE balise.decoy (
    decoy_id bigserial PRIMARY KEY,
    role_name name NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    mode text NOT NULL CHECK (mode IN ('safe', 'believable')),
    identity jsonb NOT NULL,
    spaces jsonb NOT NULL,
    key jsonb NOT NULL,
    key_fingerprint text NOT NULL,
    -- without it the registry's digest of an identity would tell it to who tries all names
    salt uuid NOT NULL DEFAULT gen_random_uuid(),
    issued_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    UNIQUE (role_name, number)
);
COMMENT ON TABLE balise.decoy IS 'Secret: every patient who does not exist, by the recipient it was issued to';

CREATE TABLE balise.decoy_trait (
    decoy_id bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (decoy_id, kind, value)
);
CREATE INDEX decoy_trait_value ON balise.decoy_trait (value, kind);
COMMENT ON TABLE balise.decoy_trait IS 'Secret: by what a decoy is recognised, in canonical form';

CREATE TABLE balise.tripwire (
    event_id bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    role_name name NOT NULL,
    client inet,
    application_name text NOT NULL,
    decoy_ids bigint[] NOT NULL,
    kinds text[] NOT NULL,
    relayed_at timestamptz
);
CREATE INDEX tripwire_untold ON balise.tripwire (event_id) WHERE relayed_at IS NULL;
CREATE INDEX tripwire_role ON balise.tripwire (role_name, at);
COMMENT ON TABLE balise.tripwire IS 'Who met a decoy''s identity in balise.check(), when and from where; never with the text';

-- EXPLAIN's estimates confirmed guesses about the decoys of all recipients
DO $$
DECLARE
    kept record;
BEGIN
    FOR kept IN
        SELECT a.attrelid, a.attnum, a.attrelid::regclass AS name, a.attname
          FROM pg_catalog.pg_attribute AS a
          JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind = 'r'
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = 'balise_decoy' AND a.attname <> 'balise_recipient'
           AND a.attnum > 0 AND NOT a.attisdropped
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', kept.name, kept.attname);
        DELETE FROM pg_catalog.pg_statistic WHERE starelid = kept.attrelid AND staattnum = kept.attnum;
    END LOOP;
END
$$;
