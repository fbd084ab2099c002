-- How fast it was, in at most $1 parts of the time between the first copy and the last,
-- none shorter than a second: the bytes of each task count evenly over the time of its
-- copy.
with task as (
    select extract(epoch from lower(worked))::float8 as began, extract(epoch from upper(worked))::float8 as ended,
           coalesce(bytes, 0) as bytes
    from __backfill.task where worked is not null
), whole as (
    select min(began) as began, max(ended) - min(began) as took from task
), span as (
    select began, parts, greatest(took / parts, 1e-6) as step
    from whole, greatest(least($1::int, floor(took)::int), 1) parts
), part as (
    select began + step * n as began, began + step * (n + 1) as ended, step from span, generate_series(0, parts - 1) n
)
select to_timestamp(p.began),
       coalesce(sum(t.bytes * (least(t.ended, p.ended) - greatest(t.began, p.began))
                    / greatest(t.ended - t.began, 1e-9)), 0)::float8 / min(p.step)
from part p
left join task t on t.began < p.ended and t.ended > p.began
where p.began is not null
group by p.began
order by p.began
