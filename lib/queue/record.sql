-- Merge a plan (temporary table staged) into the tasks. A chunk that is staged
-- already keeps its number. Staging again only ever adds: a chunk that was
-- staged with another range (an earlier --until) gets the union of both, and is
-- pending again if it had worked, because the task is one transaction and
-- copying rows again does no harm.
with union_of as (
    select t.priority, s.*,
           (s.filter->>'from')::bigint < (t.filter->>'from')::bigint   as lower,
           (s.filter->>'until')::bigint > (t.filter->>'until')::bigint as higher,
           t.filter as old
    from __backfill.task t
    join pg_temp.staged s using (chunk_schema, chunk_name)
), widened as (
    select u.*,
           u.old || jsonb_strip_nulls(jsonb_build_object(
               'from',       case when u.lower then u.filter->>'from' end,
               'from_text',  case when u.lower then coalesce(u.filter->>'from_text', '') end,
               'until',      case when u.higher then u.filter->>'until' end,
               'until_text', case when u.higher then coalesce(u.filter->>'until_text', '') end)) as wide
    from union_of u
    where u.lower or u.higher
), updated as (
    update __backfill.task t
    set filter = w.wide || jsonb_build_object('partial',
            w.wide->>'from' <> t.dimensions->0->>'from' or w.wide->>'until' <> t.dimensions->0->>'until'),
        origin = w.origin, lsn = w.lsn, snapshot = w.snapshot, rows_only = w.rows_only, est_bytes = w.est_bytes, est_rows = w.est_rows,
        worked = null, verified = null, verify_message = null, rows = null, bytes = null,
        copy_message = case when t.worked is not null then 'staged again with a wider range' else t.copy_message end
    from widened w
    where t.priority = w.priority
    returning t.priority
), renewed as ( -- a new snapshot for what is still to do
    update __backfill.task t
    set origin = u.origin, lsn = u.lsn, snapshot = u.snapshot, rows_only = u.rows_only
    from union_of u
    where t.priority = u.priority and not (u.lower or u.higher) and t.worked is null
      and (t.origin, t.snapshot, t.rows_only) is distinct from (u.origin, u.snapshot, u.rows_only)
    returning t.priority
), added as (
    insert into __backfill.task (chunk_schema, chunk_name, hypertable_schema, hypertable_name, view_schema, view_name,
                                 dimensions, filter, origin, lsn, snapshot, rows_only, est_bytes, est_rows)
    select s.chunk_schema, s.chunk_name, s.hypertable_schema, s.hypertable_name, s.view_schema, s.view_name,
           s.dimensions, s.filter, s.origin, s.lsn, s.snapshot, s.rows_only, s.est_bytes, s.est_rows
    from pg_temp.staged s
    where not exists (select from __backfill.task t
                      where t.chunk_schema = s.chunk_schema and t.chunk_name = s.chunk_name)
    order by s.n
    returning priority
)
select priority from updated union all select priority from renewed union all select priority from added
