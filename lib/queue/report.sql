-- What became of the tasks, per hypertable (of a continuous aggregate by its view):
-- counts, by which method they were found equal, when and for how long at least one
-- was being copied (busy.sql). bytes are what has travelled. copy_message begins with
-- the way the chunk was written, verify_message with the verdict and the method
-- (verify).
with task as (
    select *, {busy} as busy,
           case when worked is not null then split_part(split_part(copy_message, ':', 1), ';', 1) end as way,
           case when verified is null then null when verify_message like 'equal by value:%' then 'values'
                when verify_message like '%; count, min, max and sum%' then 'summary' else 'rows' end as method
    from (select coalesce(view_schema, into_schema, hypertable_schema) as schema,
                 coalesce(view_name, into_name, hypertable_name) as name, *
          from __backfill.task) t
    window earlier as (partition by schema, name order by lower(worked)
                       rows between unbounded preceding and 1 preceding)
), kinds as (
    select schema, name, jsonb_object_agg(kind, n) as kinds
    from (select schema, name, kind, count(*) as n from task group by 1, 2, 3) k group by 1, 2
), ways as (
    select schema, name, jsonb_object_agg(way, n) as ways
    from (select schema, name, way, count(*) as n from task where way <> '' group by 1, 2, 3) w group by 1, 2
), methods as (
    select schema, name, jsonb_object_agg(method, n) as methods
    from (select schema, name, method, count(*) as n from task where method is not null group by 1, 2, 3) m
    group by 1, 2
), loose as (
    select schema, name, jsonb_object_agg(left_uncompressed, n) as loose
    from (select schema, name, left_uncompressed, count(*) as n from task
          where left_uncompressed is not null group by 1, 2, 3) l
    group by 1, 2
)
select t.schema, t.name, count(*), count(worked), count(verified),
       count(*) filter (where worked is not null and verified is null and verify_message is not null),
       count(*) filter (where worked is null and failed is not null), coalesce(sum(attempts), 0)::bigint,
       coalesce(sum(rows), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
       min(lower(worked)), max(upper(worked)),
       coalesce(sum(busy), 0)::float8,
       min(kinds::text)::jsonb, coalesce(min(ways::text)::jsonb, '{}'), coalesce(min(methods::text)::jsonb, '{}'),
       coalesce(min(loose::text)::jsonb, '{}')
from task t
join kinds using (schema, name)
left join ways using (schema, name)
left join methods using (schema, name)
left join loose using (schema, name)
group by 1, 2
order by min(priority)
