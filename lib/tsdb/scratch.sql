-- The hypertable of that name: its number, OID, schema and name.
select h.id, c.oid, n.nspname, c.relname
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join _timescaledb_catalog.hypertable h on h.schema_name = n.nspname and h.table_name = c.relname
where c.oid = $1::text::regclass
