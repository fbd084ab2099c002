-- Counts of tasks per hypertable (of a continuous aggregate by its view). One pass
-- over the table and nothing more: --watch asks every second.
select coalesce(view_schema, into_schema, hypertable_schema), coalesce(view_name, into_name, hypertable_name),
       count(*), count(worked),
       count(*) filter (where worked is null and failed is not null), count(verified),
       count(*) filter (where worked is not null and verified is null and verify_message is not null),
       coalesce(sum(est_bytes), 0)::bigint,
       coalesce(sum(est_bytes) filter (where worked is not null), 0)::bigint,
       coalesce(sum(est_bytes) filter (where verified is not null), 0)::bigint
from __backfill.task
where {which}
group by 1, 2
order by 1, 2
