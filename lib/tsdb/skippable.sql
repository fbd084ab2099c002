-- Those of the chunks $2 of the hypertable $1 that a query may leave out by its
-- condition on a column with chunk skipping. Of such a column the hypertable has
-- an entry without a chunk (up to 2.22: with chunk 0) and each chunk its own: the
-- range of its values, taken when the chunk was compressed. What is not valid, or
-- has no bounds, excludes nothing; a chunk without an entry is always left out.
select distinct c.id
from _timescaledb_catalog.chunk_column_stats h
cross join unnest($2::int[]) c(id)
left join _timescaledb_catalog.chunk_column_stats s
       on s.hypertable_id = h.hypertable_id and s.chunk_id = c.id and s.column_name = h.column_name
where h.hypertable_id = $1 and (h.chunk_id is null or h.chunk_id = 0)
  and (s.id is null or s.valid and (s.range_start > '-9223372036854775808' or s.range_end < 9223372036854775807))
