-- Gives the chunk $2 of the hypertable $1 the unbounded ranges of a new chunk.
insert into _timescaledb_catalog.chunk_column_stats as s (hypertable_id, chunk_id, column_name, range_start,
    range_end, valid)
select h.hypertable_id, $2, h.column_name, '-9223372036854775808', 9223372036854775807, true
from _timescaledb_catalog.chunk_column_stats h
where h.hypertable_id = $1 and (h.chunk_id is null or h.chunk_id = 0)
on conflict (hypertable_id, chunk_id, column_name) do update
set range_start = excluded.range_start, range_end = excluded.range_end, valid = true
