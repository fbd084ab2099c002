-- Delete tasks whose chunk is not in the plan (temporary table staged) and whose
-- whole range is covered by chunks in the plan (table live). Chunks of a hypertable
-- never overlap, so the task's chunk was renamed, merged or split, and other tasks
-- copy its rows. The task of a chunk that was dropped stays: its range is not
-- covered. Chunks that hold the task's slices of the other dimensions do not
-- overlap in the first one, so their lengths can be added up. A hypertable that
-- was renamed is found by its number, which is in the names of its chunks.
with absent as (
    select priority, int8range((t.filter->>'from')::bigint, (t.filter->>'until')::bigint) as range
    from __backfill.task t
    where not exists (select from pg_temp.staged s where s.chunk_schema = t.chunk_schema and s.chunk_name = t.chunk_name)
)
delete from __backfill.task t
using absent a
where a.priority = t.priority
  and upper(a.range)::numeric - lower(a.range) = (
    select sum(upper(l.range * a.range)::numeric - lower(l.range * a.range))
    from pg_temp.live l
    where l.range && a.range
      and ((l.hypertable_schema, l.hypertable_name) = (t.hypertable_schema, t.hypertable_name)
           or l.number = substring(t.chunk_name from '^_hyper_\d+_'))
      and not exists (
        select from jsonb_array_elements(t.dimensions - 0) d
        where not exists (
            select from jsonb_array_elements(l.others) h
            where h->>'column' = d->>'column'
              and (h->>'from')::numeric <= (d->>'from')::numeric and (h->>'until')::numeric >= (d->>'until')::numeric)))
returning t.priority, t.chunk_schema, t.chunk_name
