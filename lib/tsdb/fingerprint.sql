-- The versions (xmin) of the catalog rows that describe a hypertable: equal as
-- long as no DDL has touched its columns, dimensions, constraints or
-- compression. One cheap look per chunk instead of reading all of it again.
select h.id,
       h.xmin::text || ':' || c.oid || ':' || c.xmin::text || ':'
       || (select string_agg(a.xmin::text, ',' order by a.attnum) from pg_attribute a
           where a.attrelid = c.oid and a.attnum > 0) || ':'
       || coalesce((select string_agg(k.xmin::text, ',' order by k.oid) from pg_constraint k
           where k.conrelid = c.oid), '') || ':'
       || coalesce((select string_agg(i.xmin::text, ',' order by i.indexrelid) from pg_index i
           where i.indrelid = c.oid), '') || ':'
       || (select string_agg(d.xmin::text, ',' order by d.id) from _timescaledb_catalog.dimension d
           where d.hypertable_id = h.id),
       {skips}
from _timescaledb_catalog.hypertable h
join pg_class c on c.relname = h.table_name
    and c.relnamespace = (select oid from pg_namespace where nspname = h.schema_name)
where {which} and h.compression_state <> 2
