-- What is staged of each hypertable and continuous aggregate (by its view).
select coalesce(view_schema, into_schema, hypertable_schema), coalesce(view_name, into_name, hypertable_name),
       max((filter->>'until')::bigint), max(copied_until), count(*) filter (where worked is null)
from __backfill.task
left join __backfill.aggregate using (view_schema, view_name)
group by 1, 2
