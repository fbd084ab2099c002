-- Delete tasks whose chunk is not in the plan (temporary table staged) and whose
-- whole range is covered by chunks in the plan (table live). Chunks of a hypertable
-- never overlap, so the task's chunk was renamed, merged or split, and other tasks
-- copy its rows. The task of a chunk that was dropped stays: its range is not
-- covered. Chunks that hold the task's slices of the other dimensions do not
-- overlap in the first one, so their lengths can be added up. A hypertable that
-- was renamed is found by its number, which is in the names of its chunks. So it is
-- with slices, when the target's grid is another one than it was.
with absent as (
    select priority, int8range((t.filter->>'from')::bigint, (t.filter->>'until')::bigint) as range
    from __backfill.task t
    where not exists (select from pg_temp.staged s where s.key = t.key)
)
delete from __backfill.task t
using absent a
where a.priority = t.priority
  and upper(a.range)::numeric - lower(a.range) = (
    select sum(upper(l.range * a.range)::numeric - lower(l.range * a.range))
    from pg_temp.live l
    where l.range && a.range
      and l.chunk = (t.kind = 'chunk')
      and ((l.into_schema, l.into_name) = (coalesce(t.into_schema, t.hypertable_schema),
          coalesce(t.into_name, t.hypertable_name))
           or l.chunk and l.number = substring(t.chunk_name from '^_hyper_\d+_'))
      and not exists (
        select from jsonb_array_elements(t.dimensions - 0) d
        where not exists (
            select from jsonb_array_elements(l.others) h
            where h->>'column' = d->>'column'
              and (h->>'from')::numeric <= (d->>'from')::numeric and (h->>'until')::numeric >= (d->>'until')::numeric)))
returning t.priority, case when t.kind <> 'chunk' then t.kind
    else '' end, t.hypertable_schema, t.hypertable_name, t.chunk_schema, t.chunk_name, t.filter
