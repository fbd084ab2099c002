-- What hypertables were made with, one JSON object each, materialization
-- hypertables among them. Names that TimescaleDB gives by itself (schema and
-- prefix of chunks, with the hypertable's number) are left out: they would be
-- others elsewhere. Columns that not every version has are read by to_jsonb().
-- {skips}, {granular} and {which} are filled in (package tsdb).
select jsonb_strip_nulls(jsonb_build_object(
           'id', h.id, 'oid', c.oid::bigint,
           'name', jsonb_build_object('schema', n.nspname, 'name', c.relname),
           'chunk_schema', nullif(h.associated_schema_name, '_timescaledb_internal'),
           'chunk_prefix', case when h.associated_table_prefix !~ '^_hyper_\d+$' then h.associated_table_prefix end,
           'chunk_target', (to_jsonb(h)->>'chunk_target_size')::bigint,
           -- Bits of status: 4 compression is enabled (2.29 and newer), 8 rows
           -- are compressed as they come.
           'compressed', h.compression_state = 1 or coalesce((to_jsonb(h)->>'status')::int, 0) & 4 = 4,
           'direct_compress', nullif(coalesce((to_jsonb(h)->>'status')::int, 0) & 8 = 8, false),
           'dimensions', (
               select jsonb_agg(jsonb_build_object(
                          'column', d.column_name,
                          'partitions', d.num_slices,
                          'interval', d.interval_length,
                          'range_type',
                          format_type(coalesce(case when d.num_slices is null then f.prorettype end, d.column_type),
                          null),
                          -- The hash function of TimescaleDB's own is the default.
                          'func', case when d.partitioning_func <> 'get_partition_hash'
                                       then jsonb_build_object('schema', d.partitioning_func_schema, 'name',
                                           d.partitioning_func) end,
                          'now', case when d.integer_now_func <> ''
                                      then jsonb_build_object('schema', d.integer_now_func_schema, 'name',
                                          d.integer_now_func) end,
                          'compressed_interval', d.compress_interval_length) order by d.id)
               from _timescaledb_catalog.dimension d
               left join lateral (
                   select p.prorettype
                   from pg_proc p
                   join pg_namespace pn on pn.oid = p.pronamespace
                   where pn.nspname = d.partitioning_func_schema and p.proname = d.partitioning_func and p.pronargs = 1
                   order by p.proargtypes[0] = d.column_type desc
                   limit 1) f on true
               where d.hypertable_id = h.id),
           'tablespaces', (select jsonb_agg(tablespace_name order by id) from _timescaledb_catalog.tablespace
               where hypertable_id = h.id),
           'skips', {skips},
           'granular', {granular}))
from _timescaledb_catalog.hypertable h
join pg_namespace n on n.nspname = h.schema_name
join pg_class c on c.relnamespace = n.oid and c.relname = h.table_name
where h.compression_state <> 2 and {which}
order by n.nspname, c.relname
