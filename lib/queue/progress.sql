-- Counts of tasks per hypertable (of a continuous aggregate by its view), and of
-- all tasks in the row without a name. Bytes are the estimates made when the tasks
-- were staged, so they are known before the copy. The rate is that of the tasks
-- that were done last: their bytes divided by the time in which at least one of
-- them was being copied (busy.sql). Pauses do not count.
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
), last as (
    select schema, name, est_bytes, {busy} as busy
    from recent where nth <= 64
    window earlier as (partition by schema, name order by lower(worked)
                       rows between unbounded preceding and 1 preceding)
    union all
    select null, null, est_bytes, {busy}
    from recent where nth_of_all <= 64
    window earlier as (order by lower(worked) rows between unbounded preceding and 1 preceding)
), rates as (
    select schema, name, sum(est_bytes) / nullif(sum(busy), 0) as rate from last group by 1, 2
)
select coalesce(c.schema, ''), coalesce(c.name, ''), c.total, c.done, c.failed, c.verified, c.unequal, c.bytes,
       c.bytes_done,
       coalesce(r.rate, 0)::float8
from counted c
left join rates r on r.schema is not distinct from c.schema and r.name is not distinct from c.name
order by c.schema nulls last, c.name
