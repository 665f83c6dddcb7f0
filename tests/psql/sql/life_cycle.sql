-- From CREATE EXTENSION to a traced leak and out again, as a DBA does it in psql.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION pgbalise CASCADE;
RESET client_min_messages;
SELECT balise.version();
COPY (SELECT repeat('0123456789abcdef', 4)) TO PROGRAM 'umask 077; cat > balise_regress.key';
SELECT current_setting('data_directory') || '/balise_regress.key' AS key_file \gset

CREATE SCHEMA ward;
CREATE TABLE ward.vital (id integer PRIMARY KEY, heart_rate integer, weight numeric(5,1), note text);
INSERT INTO ward.vital SELECT i, 55 + i % 40, 50 + (i % 300) / 10.0, 'note ' || i FROM generate_series(1, 2000) AS i;

SELECT balise.mark_column('ward.vital', 'heart_rate', quantum => '1', bounds => '{20,250}', density => 0.5);
SELECT balise.mark_column('ward.vital', 'weight', quantum => '0.1', bounds => '{0,400}', density => 0.5);
SELECT balise.apply(:'key_file');

CREATE ROLE regress_alice LOGIN;
CREATE ROLE regress_bob LOGIN;
CREATE ROLE regress_carol LOGIN;
SELECT balise.enrol('regress_alice', key_file => :'key_file');
SELECT balise.enrol('regress_bob', key_file => :'key_file');
SELECT balise.enrol('regress_carol', 'care', :'key_file');
SELECT role_name, class, revoked_at FROM balise.recipient ORDER BY role_name;
SELECT role_name, epoch, octet_length(commitment) FROM balise.commitment ORDER BY role_name;

-- the same key gives the same marks, on every server
SET SESSION AUTHORIZATION regress_alice;
SELECT * FROM marked.vital ORDER BY id LIMIT 8;
SELECT md5(string_agg(v::text, ' ' ORDER BY id)) FROM marked.vital AS v;
CREATE TEMPORARY TABLE leak AS SELECT * FROM marked.vital;
GRANT SELECT ON leak TO PUBLIC;
SELECT count(*) FROM ward.vital;
SELECT count(*) FROM marked_care.vital;
SELECT count(*) FROM balise.codeword;
SELECT balise.apply('/etc/passwd');
SET SESSION AUTHORIZATION regress_bob;
SELECT md5(string_agg(v::text, ' ' ORDER BY id)) FROM marked.vital AS v;
SET SESSION AUTHORIZATION regress_carol;
SELECT md5(string_agg(v::text, ' ' ORDER BY id)) FROM marked_care.vital AS v;
RESET SESSION AUTHORIZATION;
SELECT md5(string_agg(v::text, ' ' ORDER BY id)) FROM ward.vital AS v;
SELECT count(*) FROM marked.vital;

SELECT recipient, accused FROM balise.trace('leak', 'ward.vital', :'key_file') WHERE accused;

-- the views follow the table, which keeps what the policy rests on
ALTER TABLE ward.vital ADD COLUMN ward_name text DEFAULT 'A';
SELECT * FROM balise.in_step((SELECT relation_id FROM balise.relation));
SET SESSION AUTHORIZATION regress_bob;
SELECT id, ward_name FROM marked.vital ORDER BY id LIMIT 2;
RESET SESSION AUTHORIZATION;
ALTER TABLE ward.vital DROP COLUMN weight CASCADE;
ALTER TABLE ward.vital RENAME COLUMN heart_rate TO pulse;
DROP TABLE ward.vital CASCADE;

-- a new epoch: other marks, and old leaks stay traceable
SELECT balise.open_epoch(:'key_file');
SELECT epoch, key_fingerprint FROM balise.epoch ORDER BY epoch;
SET SESSION AUTHORIZATION regress_alice;
SELECT md5(string_agg((v.id, v.heart_rate, v.weight, v.note)::text, ' ' ORDER BY id)) FROM marked.vital AS v;
RESET SESSION AUTHORIZATION;
SELECT recipient, accused FROM balise.trace('leak', 'ward.vital', :'key_file') WHERE accused;

SELECT balise.revoke('regress_alice');
SET SESSION AUTHORIZATION regress_alice;
SELECT count(*) FROM marked.vital;
RESET SESSION AUTHORIZATION;
SELECT balise.enrol('regress_alice', key_file => :'key_file');

-- out again
SET client_min_messages = warning;
DROP EXTENSION pgbalise CASCADE;
RESET client_min_messages;
SELECT md5(string_agg(v::text, ' ' ORDER BY id)) FROM ward.vital AS v;
DROP OWNED BY balise_owner;
DROP SCHEMA balise, marked, marked_care, ward CASCADE;
DROP OWNED BY regress_alice, regress_bob, regress_carol;
DROP ROLE regress_alice, regress_bob, regress_carol;
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm balise_regress.key';
