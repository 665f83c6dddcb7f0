-- The catalog: roles and tables of schema balise. Part of the extension, and all by itself what
-- `pgbalise init --sql-only` installs (with routines.sql).

-- balise_owner owns the marked views: it may read the protected relations and the secrets, and
-- nobody logs in as it. balise_admin runs pgbalise, balise_auditor reads what it did,
-- as balise_proxy the proxy learns what is protected, and applications call balise.check() as
-- members of balise_tripwire.
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

-- No foreign keys: pg_restore --jobs loads an extension's tables in any order, with their
-- constraints already there, and would lose what refers to rows not loaded yet.
CREATE TABLE balise.policy (
    version serial PRIMARY KEY,
    document jsonb NOT NULL,
    applied_at timestamptz
);
COMMENT ON TABLE balise.policy IS 'Every policy applied, the newest last; applied_at is NULL for the draft';
CREATE UNIQUE INDEX policy_one_draft ON balise.policy ((applied_at IS NULL)) WHERE applied_at IS NULL;

CREATE TABLE balise.epoch (
    epoch integer PRIMARY KEY,
    key_fingerprint text,
    opened_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE balise.epoch IS 'Every epoch opened, and the master key it marks with; the last one is in force';

CREATE TABLE balise.relation (
    relation_id serial PRIMARY KEY,
    schema_name name NOT NULL,
    relation_name name NOT NULL,
    column_names name[] NOT NULL DEFAULT '{}',
    needed_columns name[] NOT NULL DEFAULT '{}',
    UNIQUE (schema_name, relation_name)
);
COMMENT ON TABLE balise.relation IS 'The protected relations, their columns when the policy was applied, and those it rests on';

CREATE TABLE balise.marked_view (
    schema_name name NOT NULL,
    view_name name NOT NULL,
    relation_id integer NOT NULL,
    definition_hash bytea NOT NULL,
    PRIMARY KEY (schema_name, view_name)
);
COMMENT ON TABLE balise.marked_view IS 'The marked views as written, each with the SHA-256 of pg_get_viewdef()';
CREATE INDEX marked_view_relation_id ON balise.marked_view (relation_id);

CREATE TABLE balise.relation_secret (
    relation_id integer PRIMARY KEY,
    seeds bigint[] NOT NULL,
    keys bytea[] NOT NULL,
    -- a NULL among them would give stored values
    CHECK (cardinality(seeds) = 2 * cardinality(keys)
           AND array_position(seeds, NULL) IS NULL AND array_position(keys, NULL) IS NULL)
) WITH (fillfactor = 10);
COMMENT ON TABLE balise.relation_secret IS 'Secret: two hash seeds and one key for each carrier';

CREATE TABLE balise.recipient (
    role_name name PRIMARY KEY,
    class text NOT NULL CHECK (class IN ('secondary', 'care')),
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    UNIQUE (role_name, class)
);
COMMENT ON TABLE balise.recipient IS 'Every recipient ever enrolled';

CREATE TABLE balise.commitment (
    role_name name,
    epoch integer,
    commitment bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role_name, epoch)
);
COMMENT ON TABLE balise.commitment IS 'The commitment to each codeword that a recipient ever had, one for each epoch';

-- One row fills one heap page: the word is read in place, without TOAST, and the planner finds
-- it by index from the first recipient on.
CREATE TABLE balise.codeword (
    role_name name PRIMARY KEY,
    class text NOT NULL,
    word bytea NOT NULL CHECK (octet_length(word) = 8000)
);
ALTER TABLE balise.codeword ALTER COLUMN word SET STORAGE PLAIN;
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
