-- Merge a plan (temporary table staged) into the tasks. A chunk that has a task
-- keeps its number. Staging again never takes rows away: a task with another range
-- (an earlier --until) gets the union of both ranges, which has no gap (see
-- Conflicts). If it was done, it is pending again and copies all of the union; so
-- it is with the same range if the plan is of what differs ($1).
-- A chunk that was merged or split since, or whose hypertable or dimension was
-- renamed, is planned anew; of its old range stays what is inside the new extent.
-- Slices likewise, and those of files if they are others; the plan knows best where their
-- rows are, even if they are copied.
with known as (
    select t.priority as number, t.filter as old, s.*,
           -- what was staged beside it is no change of a task
           (t.origin, t.snapshot, t.scan - '{from,until}'::text[])
               is distinct from (s.origin, s.snapshot, s.scan - '{from,until}'::text[]) as moved,
           (t.kind, t.hypertable_schema, t.hypertable_name, t.view_schema, t.view_name, t.into_schema, t.into_name,
               t.dimensions)
               is distinct from
           (s.kind, s.hypertable_schema, s.hypertable_name, s.view_schema, s.view_name, s.into_schema, s.into_name,
               s.dimensions) as changed,
           s.kind = 'csv' and t.scan is distinct from s.scan                          as other_files,
           greatest((t.filter->>'from')::bigint, (s.dimensions->0->>'from')::bigint)  as old_from,
           least((t.filter->>'until')::bigint, (s.dimensions->0->>'until')::bigint)   as old_until,
           (s.filter->>'from')::bigint                                                as new_from,
           (s.filter->>'until')::bigint                                               as new_until
    from __backfill.task t
    join pg_temp.staged s on s.key = t.key
), union_of as (
    select k.*,
           $1::boolean or k.changed or k.new_from < k.old_from or k.new_until > k.old_until or k.other_files as anew,
           k.filter || jsonb_strip_nulls(jsonb_build_object(
               'from',       case when k.lower then k.old_from::text end,
               'from_text',  case when k.lower
                   then coalesce(case when k.old_from::text = k.old->>'from' then k.old->>'from_text' end, '') end,
               'until',      case when k.higher then k.old_until::text end,
               'until_text', case when k.higher
                   then coalesce(case when k.old_until::text = k.old->>'until'
                   then k.old->>'until_text' end, '') end)) as wide
    from (select *, old_from < old_until and old_from < new_from as lower,
                    old_from < old_until and old_until > new_until as higher from known) k
), updated as (
    update __backfill.task t
    set kind = u.kind, chunk_schema = u.chunk_schema, chunk_name = u.chunk_name,
        hypertable_schema = u.hypertable_schema, hypertable_name = u.hypertable_name, view_schema = u.view_schema,
        view_name = u.view_name,
        into_schema = u.into_schema, into_name = u.into_name, dimensions = u.dimensions, scan = u.scan,
        filter = u.wide || jsonb_build_object('partial',
            u.wide->>'from' <> u.dimensions->0->>'from' or u.wide->>'until' <> u.dimensions->0->>'until'),
        origin = u.origin, lsn = u.lsn, snapshot = u.snapshot, rows_only = u.rows_only, est_bytes = u.est_bytes,
        est_rows = u.est_rows,
        worked = null, verified = null, verify_message = null, rows = null, bytes = null,
        copy_message = case when u.changed then 'staged again: the chunk is another than it was'
                            when $1 then 'staged again: the sides differed'
                            when u.other_files and t.worked is not null then 'staged again with other files'
                            when t.worked is not null then 'staged again with a wider range' else t.copy_message end,
        failed = case when not u.changed then t.failed end
    from union_of u
    where t.priority = u.number and u.anew
    returning t.priority
), renewed as ( -- a new snapshot for what is still to do
    update __backfill.task t
    set origin = u.origin, lsn = u.lsn, snapshot = u.snapshot, rows_only = u.rows_only
    from union_of u
    where t.priority = u.number and not u.anew and t.worked is null and t.kind = 'chunk'
      and (t.origin, t.snapshot, t.rows_only) is distinct from (u.origin, u.snapshot, u.rows_only)
    returning t.priority
), mapped as ( -- a new map of the same rows
    update __backfill.task t
    set origin = u.origin, lsn = u.lsn, snapshot = u.snapshot, scan = u.scan
    from union_of u
    where t.priority = u.number and not u.anew and t.kind <> 'chunk'
      and (u.new_from, u.new_until) = (u.old_from, u.old_until)
      and (t.origin, t.snapshot, t.scan) is distinct from (u.origin, u.snapshot, u.scan)
    returning t.priority, t.worked is null and u.moved as pending
), added as (
    insert into __backfill.task (kind, chunk_schema, chunk_name, hypertable_schema, hypertable_name, view_schema,
        view_name,
                                 into_schema, into_name, dimensions, filter, scan, origin, lsn, snapshot, rows_only,
                                 est_bytes, est_rows)
    select s.kind, s.chunk_schema, s.chunk_name, s.hypertable_schema, s.hypertable_name, s.view_schema, s.view_name,
           s.into_schema, s.into_name, s.dimensions, s.filter, s.scan, s.origin, s.lsn, s.snapshot, s.rows_only,
           s.est_bytes, s.est_rows
    from pg_temp.staged s
    where not exists (select from __backfill.task t where t.key = s.key)
    order by s.n
    returning priority
)
select priority from updated union all select priority from renewed union all select priority from mapped
    where pending union all select priority from added
