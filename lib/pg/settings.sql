-- Settings of every session of bf. Values, times and identifiers must read the
-- same on both sides whatever the role, the database or PGOPTIONS say, and no
-- timeout of the application may hit a long COPY. Settings that the server
-- does not know (older versions) are left out. TimescaleDB's chunks go neither
-- by default_tablespace nor by the default access method: nor must our tables.
-- lock_timeout is finite: a chunk that cannot be locked fails and is tried
-- again, instead of queueing the application behind us. The last four make the
-- server notice within a minute, or what the connection string says (tcp.go),
-- that we are gone without a word (power, network): until then it keeps our
-- locks.
select count(set_config(s.name, v.value, false))
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
    ('lock_timeout', '10s'),
    ('jit', 'off'),
    ('client_connection_check_interval', '10s'),
    ('tcp_keepalives_idle', '{idle}'),
    ('tcp_keepalives_interval', '{interval}'),
    ('tcp_keepalives_count', '{count}')
) v(name, value)
join pg_catalog.pg_settings s on lower(s.name) = v.name
