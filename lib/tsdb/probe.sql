-- What this server is and can do, asked once per connection. Catalog columns
-- are probed instead of comparing version strings: they moved between minor
-- releases (chunk.relid replaced schema and table name, the link to the
-- compressed relation moved to compression_settings, "dropped" went away).
-- The internal functions live in _timescaledb_functions since 2.12; the old
-- names still exist there but warn at each call. A source need not have the
-- extension: its version is empty then.
select current_setting('server_version_num')::int                            as postgres,
       coalesce(e.extversion, '')                                             as timescaledb,
       coalesce(en.nspname, '')                                               as extension_schema,
       case when to_regprocedure('_timescaledb_functions.create_chunk(regclass,jsonb,name,name,regclass)') is not null
            then '_timescaledb_functions' else '_timescaledb_internal' end    as functions,
       coalesce(current_setting('timescaledb.license', true), '')             as license,
       r.rolsuper                                                             as superuser,
       (select oid from pg_database where datname = current_database())
           || '@' || extract(epoch from pg_postmaster_start_time())            as identity,
       (select system_identifier::text from pg_control_system())
           || '/' || (select oid from pg_database where datname = current_database()) as origin,
       case when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn()::text, '')
            else pg_current_wal_insert_lsn()::text end as lsn,
       pg_is_in_recovery()                                                    as standby,
       array(select c.relname || '.' || a.attname
             from pg_class c
             join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relnamespace = to_regnamespace('_timescaledb_catalog')
               and c.relname in ('chunk', 'compression_settings', 'continuous_aggs_materialization_ranges',
                   'chunk_column_stats', 'hypertable_cagg_settings', 'bgw_job')) as columns
from pg_roles r
left join pg_extension e on e.extname = 'timescaledb'
left join pg_namespace en on en.oid = e.extnamespace
where r.rolname = current_user
