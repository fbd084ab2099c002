-- Settings of every session of bf. They override those of the role, the database
-- and PGOPTIONS: values, times and identifiers must have the same text on both
-- sides, and no timeout may end a long COPY. Settings that the server does not
-- know (older versions) are left out (pg_settings knows as well, but a look at it takes
-- longer than all of this). TimescaleDB creates chunks without regard
-- to default_tablespace and default_table_access_method, so bf's tables ignore
-- them too. lock_timeout is finite: a task that cannot lock its chunk fails and
-- is tried again, and the application does not queue behind it. What is asked with
-- parameters is read from catalogs, once per chunk: to plan that takes longer than to
-- run it, and by default it is planned anew five times. Conditions on rows are literals.
-- With the last four the server detects a dead client (power failure, broken network)
-- within a minute, or by the limits of the connection string (tcp.go), and releases its
-- locks.
select count(set_config(v.name, v.value, false))
from (values
    ('search_path', 'pg_catalog, pg_temp'),
    ('timezone', 'UTC'),
    ('datestyle', 'ISO, YMD'),
    ('intervalstyle', 'postgres'),
    ('extra_float_digits', '3'),
    ('bytea_output', 'hex'),
    ('lc_monetary', 'C'),
    ('xmloption', 'content'),
    ('client_encoding', 'UTF8'),
    ('standard_conforming_strings', 'on'),
    ('array_nulls', 'on'),
    ('quote_all_identifiers', 'off'),
    ('default_tablespace', ''),
    ('default_table_access_method', 'heap'),
    ('default_transaction_isolation', 'read committed'),
    ('default_transaction_read_only', 'off'),
    ('default_transaction_deferrable', 'off'),
    ('row_security', 'off'),
    ('statement_timeout', '0'),
    ('transaction_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0'),
    ('idle_session_timeout', '0'),
    ('lock_timeout', '{lock_timeout}'),
    ('jit', 'off'),
    ('plan_cache_mode', 'force_generic_plan'),
    ('client_connection_check_interval', '10s'),
    ('tcp_keepalives_idle', '{idle}'),
    ('tcp_keepalives_interval', '{interval}'),
    ('tcp_keepalives_count', '{count}')
) v(name, value)
where current_setting(v.name, true) is not null
