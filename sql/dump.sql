-- What pg_dump takes along: all of the catalog.
SELECT pg_catalog.pg_extension_config_dump('balise.policy', '');
SELECT pg_catalog.pg_extension_config_dump('balise.policy_version_seq', '');
SELECT pg_catalog.pg_extension_config_dump('balise.epoch', '');
SELECT pg_catalog.pg_extension_config_dump('balise.relation', '');
SELECT pg_catalog.pg_extension_config_dump('balise.relation_relation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('balise.marked_view', '');
SELECT pg_catalog.pg_extension_config_dump('balise.relation_secret', '');
SELECT pg_catalog.pg_extension_config_dump('balise.recipient', '');
SELECT pg_catalog.pg_extension_config_dump('balise.commitment', '');
SELECT pg_catalog.pg_extension_config_dump('balise.codeword', '');
SELECT pg_catalog.pg_extension_config_dump('balise.decoy', '');
SELECT pg_catalog.pg_extension_config_dump('balise.decoy_decoy_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('balise.decoy_trait', '');
SELECT pg_catalog.pg_extension_config_dump('balise.tripwire', '');
SELECT pg_catalog.pg_extension_config_dump('balise.tripwire_event_id_seq', '');
