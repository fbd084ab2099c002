-- What the database is, and what its objects need of the server they go to:
-- roles that own something ($1: they matter) or are granted something ($2),
-- those of row security policies in any case; tablespaces; extensions; access
-- methods. The extension's own objects are not counted.
with mine as (
    select c.oid, c.relowner, c.reltablespace, c.relam, c.relkind
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname !~ '^(pg_|information_schema$|_timescaledb)'
      and not exists (select from pg_depend d
          where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
)
select current_setting('server_version_num')::int / 10000,
       current_database()::text,
       (select oid from pg_database where datname = current_database()) || '@'
           || extract(epoch from pg_postmaster_start_time()),
       array(select distinct r.rolname::text
             from pg_shdepend s
             join pg_roles r on r.oid = s.refobjid
             where s.refclassid = 'pg_authid'::regclass
               and s.dbid = (select oid from pg_database where datname = current_database())
               and (s.deptype = 'o' and $1::boolean or s.deptype = 'a' and $2::boolean or s.deptype = 'r')
             union
             select r.rolname::text from mine join pg_roles r on r.oid = relowner where $1
             order by 1),
       array(select distinct t.spcname::text from mine join pg_tablespace t on t.oid = reltablespace
           where t.spcname <> 'pg_global' order by 1),
       array(select extname::text from pg_extension where extname not in ('plpgsql', 'timescaledb') order by 1),
       array(select distinct a.amname::text from mine join pg_am a on a.oid = relam where a.amtype = 't' order by 1)
