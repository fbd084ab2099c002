-- Continuous aggregates: what they aggregate, how they bucket and how far they
-- are materialized. The catalogs changed: until 2.14 a fixed width is a number
-- in continuous_agg and only variable buckets (width -1) have a row of
-- continuous_aggs_bucket_function; since 2.15 every aggregate has one, with
-- other columns. to_jsonb() hides which columns there are.
-- {functions} is the schema of the internal functions.
select ca.mat_hypertable_id, ca.user_view_schema, ca.user_view_name,
       ca.materialized_only,
       {functions}.cagg_watermark(ca.mat_hypertable_id),
       coalesce(split_part(bf.j->>'bucket_func', '(', 1),
                case when (bf.j->>'experimental')::boolean then 'timescaledb_experimental.time_bucket_ng' end,
                ''),
       coalesce(bf.j->>'bucket_width', to_jsonb(ca)->>'bucket_width', ''),
       coalesce(bf.j->>'bucket_origin', bf.j->>'origin', ''),
       coalesce(bf.j->>'bucket_offset', ''),
       coalesce(bf.j->>'bucket_timezone', bf.j->>'timezone', ''),
       ca.parent_mat_hypertable_id is not null and coalesce(bf.j->>'bucket_width' like '%0 days', false),
       coalesce((bf.j->>'bucket_fixed_width')::boolean, false),
       -- Numbers of hypertables differ between databases.
       regexp_replace(pg_get_viewdef(format('%I.%I', ca.direct_view_schema, ca.direct_view_name)::regclass),
           '_materialized_hypertable_\d+', '_materialized_hypertable', 'g')
from _timescaledb_catalog.continuous_agg ca
left join lateral (
    select to_jsonb(f) as j
    from _timescaledb_catalog.continuous_aggs_bucket_function f
    where f.mat_hypertable_id = ca.mat_hypertable_id) bf on true
order by 1
