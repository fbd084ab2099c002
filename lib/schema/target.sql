-- What the target is: the extension as it is there, else the version that would be
-- created: the source's ($1) where the server has it, else the default. The last column
-- counts the relations of users: those of extensions do not count.
select current_setting('server_version_num')::int / 10000,
       (select oid from pg_database where datname = current_database()) || '@'
           || extract(epoch from pg_postmaster_start_time()),
       current_user::text,
       e.extversion is not null,
       coalesce(e.extversion,
                (select version from pg_available_extension_versions where name = 'timescaledb' and version = $1),
                (select default_version from pg_available_extensions where name = 'timescaledb'), ''),
       coalesce(n.nspname, ''),
       coalesce(has_table_privilege(to_regclass('_timescaledb_catalog.hypertable'), 'insert'),
                (select rolsuper from pg_roles where rolname = current_user)),
       -- Half of the locks that the server has room for.
       current_setting('max_locks_per_transaction')::int
           * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) / 2,
       array(select rolname::text from pg_roles),
       array(select spcname::text from pg_tablespace),
       array(select name::text from pg_available_extensions),
       array(select amname::text from pg_am),
       array(select nspname::text from pg_namespace),
       (select count(*) from pg_class c join pg_namespace cn on cn.oid = c.relnamespace
        where cn.nspname !~ '^(pg_|information_schema$|_timescaledb)' and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          and not exists (select from pg_depend d
              where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'))
from (values (1)) one
left join pg_extension e on e.extname = 'timescaledb'
left join pg_namespace n on n.oid = e.extnamespace
