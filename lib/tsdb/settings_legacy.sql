-- Compression settings up to 2.13: one row per column of the hypertable.
select array_agg(attname::text order by segmentby_column_index) filter (where segmentby_column_index is not null),
       array_agg(attname::text order by orderby_column_index)   filter (where orderby_column_index is not null),
       array_agg(orderby_asc = false order by orderby_column_index) filter (where orderby_column_index is not null),
       array_agg(orderby_nullsfirst order by orderby_column_index)  filter (where orderby_column_index is not null),
       null
from _timescaledb_catalog.hypertable_compression
where hypertable_id = $1
having count(*) > 0
