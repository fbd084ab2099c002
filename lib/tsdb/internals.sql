-- Chunks and their compressed relations that cannot be told by schema and name: the user
-- may have chosen both.
-- <= 2.28: a chunk's catalog row has its name; later its OID.
select c.oid, n.nspname, c.relname
from (select coalesce((to_jsonb(c)->>'relid')::regclass::oid,
                      to_regclass(format('%I.%I', to_jsonb(c)->>'schema_name',
                          to_jsonb(c)->>'table_name'))::oid) as relid
      from _timescaledb_catalog.chunk c {compressed}) r
join pg_class c on c.oid = r.relid
join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and (n.nspname <> '_timescaledb_internal' or c.relname !~ '^(_|compress)_?hyper_')
order by 2, 3
