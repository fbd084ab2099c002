-- The ranges of the tasks whose chunks or slices are in the plan (temporary table staged).
create temporary table live on commit drop as
select o.kind = 'chunk' as chunk, coalesce(o.into_schema, o.hypertable_schema) as into_schema,
       coalesce(o.into_name, o.hypertable_name) as into_name,
       substring(o.chunk_name from '^_hyper_\d+_') as number, o.dimensions - 0 as others,
       int8range((o.filter->>'from')::bigint, (o.filter->>'until')::bigint) as range
from pg_temp.staged s
join __backfill.task o using (key);
create index on pg_temp.live using gist (range);
analyze pg_temp.live;
