-- Dimensions of hypertables, in the order they were added. An open dimension
-- with a partitioning function ranges over the function's result type. A
-- closed (hash) dimension has a number of slices. Calendar chunks have an
-- interval of days, months or years in place of a length (in no release yet;
-- to_jsonb() hides whether there is such a column): the length is an estimate.
select d.hypertable_id, d.column_name,
       format_type(d.column_type, null),
       coalesce(d.num_slices, 0)::int,
       coalesce(d.interval_length, (extract(epoch from (to_jsonb(d)->>'interval')::interval) * 1000000)::bigint, 0),
       to_jsonb(d)->>'interval' is not null,
       coalesce(d.partitioning_func_schema, ''), coalesce(d.partitioning_func, ''),
       format_type(coalesce(case when d.num_slices is null then f.prorettype end, d.column_type), null)
from _timescaledb_catalog.dimension d
left join lateral (
    select p.prorettype
    from pg_proc p
    join pg_namespace pn on pn.oid = p.pronamespace
    where pn.nspname = d.partitioning_func_schema and p.proname = d.partitioning_func and p.pronargs = 1
    order by p.proargtypes[0] = d.column_type desc
    limit 1) f on true
where d.hypertable_id = any($1)
order by d.hypertable_id, d.num_slices is not null, d.id
