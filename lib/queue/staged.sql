-- The plan as a temporary table, to be compared with the tasks; n is its order.
create temporary table staged on commit drop as
select 0::bigint as n, chunk_schema, chunk_name, hypertable_schema, hypertable_name, view_schema, view_name,
       dimensions, filter, origin, lsn, snapshot, rows_only, est_bytes, est_rows
from __backfill.task limit 0
