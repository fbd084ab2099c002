-- Counts of tasks per hypertable (of a continuous aggregate by its view), and of
-- all tasks in the row without a name. Bytes are the estimates made when the tasks
-- were staged, so they are known before the copy. The rate is that of the tasks
-- that were done last: their bytes divided by the time in which at least one of
-- them was being copied. Pauses do not count.
with task as (
    select coalesce(view_schema, into_schema, hypertable_schema) as schema,
           coalesce(view_name, into_name, hypertable_name) as name,
           worked, failed, verified, verify_message, est_bytes
    from __backfill.task
    where {which}
), counted as (
    select schema, name, count(*) as total, count(worked) as done,
           count(*) filter (where worked is null and failed is not null) as failed,
           count(verified) as verified,
           count(*) filter (where worked is not null and verified is null and verify_message is not null) as unequal,
           coalesce(sum(est_bytes), 0)::bigint as bytes,
           coalesce(sum(est_bytes) filter (where worked is not null), 0)::bigint as bytes_done
    from task
    group by grouping sets ((schema, name), ())
), recent as (
    select schema, name, worked, est_bytes,
           row_number() over (partition by schema, name order by upper(worked) desc) as nth,
           row_number() over (order by upper(worked) desc) as nth_of_all
    from task
    where worked is not null and est_bytes > 0
), busy as (
    select schema, name, sum(est_bytes) as bytes, range_agg(worked) as times from recent where nth <= 64
        group by schema, name
    union all
    select null, null, sum(est_bytes), range_agg(worked) from recent where nth_of_all <= 64
)
select coalesce(c.schema, ''), coalesce(c.name, ''), c.total, c.done, c.failed, c.verified, c.unequal, c.bytes,
       c.bytes_done,
       coalesce(b.bytes / nullif((select extract(epoch from sum(upper(t) - lower(t))) from unnest(b.times) t), 0),
           0)::float8 as rate
from counted c
left join busy b on b.schema is not distinct from c.schema and b.name is not distinct from c.name
order by c.schema nulls last, c.name
