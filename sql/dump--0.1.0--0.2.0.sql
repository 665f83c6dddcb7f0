-- What the update adds to pg_dump's list.
SELECT pg_catalog.pg_extension_config_dump('balise.epoch', '');
SELECT pg_catalog.pg_extension_config_dump('balise.marked_view', '');
SELECT pg_catalog.pg_extension_config_dump('balise.commitment', '');
SELECT pg_catalog.pg_extension_config_dump('balise.decoy', '');
SELECT pg_catalog.pg_extension_config_dump('balise.decoy_decoy_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('balise.decoy_trait', '');
SELECT pg_catalog.pg_extension_config_dump('balise.tripwire', '');
SELECT pg_catalog.pg_extension_config_dump('balise.tripwire_event_id_seq', '');
