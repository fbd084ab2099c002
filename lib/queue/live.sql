-- The ranges of the tasks whose chunks are in the plan (temporary table staged).
create temporary table live on commit drop as
select o.hypertable_schema, o.hypertable_name, substring(o.chunk_name from '^_hyper_\d+_') as number, o.dimensions - 0 as others,
       int8range((o.filter->>'from')::bigint, (o.filter->>'until')::bigint) as range
from pg_temp.staged s
join __backfill.task o using (chunk_schema, chunk_name);
create index on pg_temp.live using gist (range);
analyze pg_temp.live;
