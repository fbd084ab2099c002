-- A condition on chunks c: that their slice of the dimension $2 of the hypertable $1
-- satisfies another one. The array is computed first, by index: a join lets the
-- planner walk all chunks of the hypertable.
c.id = any(array(
    select cc.chunk_id
    from _timescaledb_catalog.dimension_slice ds
    join _timescaledb_catalog.chunk_constraint cc on cc.dimension_slice_id = ds.id
    where ds.dimension_id = (select id from _timescaledb_catalog.dimension
        where hypertable_id = $1 and column_name = $2)
      and {range}))
