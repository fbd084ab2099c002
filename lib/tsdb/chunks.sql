-- Chunks with their dimension slices (the primary dimension first), state and
-- size. The public chunks view is slower, show_chunk() is refused by the Apache
-- edition, and range_start/range_end of the view mean different things for
-- different dimension types: slices are uniform. Dropped chunks (catalog rows
-- that a continuous aggregate keeps, up to 2.27) and tiered ones are left out.
-- "offset 0", and coalesce instead of exists, make the planner go by index: the
-- catalogs of a database that is being filled have no statistics, and a lane
-- keeps the plan of its first chunk.
-- A chunk that never had a row has no bytes, though the index of its TOAST table has.
-- {...} are filled in from the probe (package tsdb).
select c.id, c.hypertable_id, n.nspname, cl.relname, cl.oid, c.status,
       sl.cols, sl.starts, sl.ends,
       greatest(cl.reltuples, 0)::bigint,
       case when pg_relation_size(cl.oid) > 0 then pg_table_size(cl.oid) else 0 end
           + coalesce(case when pg_relation_size(z.relid) > 0 then pg_table_size(z.relid) end, 0),
       coalesce(z.relid, 0)::oid,
       cl.relfilenode is distinct from pg_relation_filenode(cl.oid)
           or coalesce((select zl.relfilenode is distinct from pg_relation_filenode(zl.oid) from pg_class zl
               where zl.oid = z.relid), false),
       coalesce(am.amname, '')
from _timescaledb_catalog.chunk c
{class}
join pg_namespace n on n.oid = cl.relnamespace
left join pg_am am on am.oid = cl.relam
{compressed}
join lateral (
    select array_agg(d.column_name::text order by d.num_slices is not null, d.id) as cols,
           array_agg(ds.range_start order by d.num_slices is not null, d.id)      as starts,
           array_agg(ds.range_end order by d.num_slices is not null, d.id)        as ends
    from _timescaledb_catalog.chunk_constraint cc
    join lateral (select * from _timescaledb_catalog.dimension_slice s
        where s.id = cc.dimension_slice_id offset 0) ds on true
    join _timescaledb_catalog.dimension d on d.id = ds.dimension_id
    where cc.chunk_id = c.id) sl on sl.cols is not null
where {which} and not c.osm_chunk {dropped}
