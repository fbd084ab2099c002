-- Chunks and their compressed relations that do not show by schema and name that
-- they are: the user may have given both.
-- Up to 2.28 a chunk's catalog row has its name, from 2.29 on its OID.
select c.oid, n.nspname, c.relname
from (select coalesce((to_jsonb(c)->>'relid')::regclass::oid,
                      to_regclass(format('%I.%I', to_jsonb(c)->>'schema_name',
                          to_jsonb(c)->>'table_name'))::oid) as relid
      from _timescaledb_catalog.chunk c {compressed}) r
join pg_class c on c.oid = r.relid
join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and (n.nspname <> '_timescaledb_internal' or c.relname !~ '^(_|compress)_?hyper_')
order by 2, 3
