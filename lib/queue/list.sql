-- Task records as bf-chunks lists them and bf-load looks them up.
select priority, chunk_schema, chunk_name, hypertable_schema, hypertable_name, view_schema, view_name,
       into_schema, into_name, case when kind <> 'chunk' then kind else '' end, scan,
       dimensions, filter, coalesce(origin, ''), coalesce(lsn, ''), coalesce(snapshot, ''), coalesce(rows_only, ''),
       est_bytes, est_rows,
       coalesce(worked::text, ''), failed is not null, verified is not null
from __backfill.task
