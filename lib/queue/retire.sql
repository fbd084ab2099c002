-- Tasks whose chunk is not in the plan (temporary table staged) while chunks
-- that are hold all of its range: since chunks of a hypertable never overlap,
-- it is none any more (renamed, merged into another, split), and its rows are
-- other tasks' now. A chunk that was dropped leaves a gap, and its task stays.
-- All chunks that hold the task's slices of the further dimensions are apart in
-- the first one: their lengths add up. A hypertable that was renamed is known by
-- the number that it gives its chunks' names.
delete from __backfill.task t
where not exists (select from pg_temp.staged s where s.chunk_schema = t.chunk_schema and s.chunk_name = t.chunk_name)
  and (t.filter->>'until')::numeric - (t.filter->>'from')::numeric = (
    select sum(least((o.filter->>'until')::numeric, (t.filter->>'until')::numeric)
               - greatest((o.filter->>'from')::numeric, (t.filter->>'from')::numeric))
    from pg_temp.staged s
    join __backfill.task o using (chunk_schema, chunk_name)
    where ((o.hypertable_schema, o.hypertable_name) = (t.hypertable_schema, t.hypertable_name)
           or substring(o.chunk_name from '^_hyper_\d+_') = substring(t.chunk_name from '^_hyper_\d+_'))
      and (o.filter->>'from')::numeric < (t.filter->>'until')::numeric
      and (o.filter->>'until')::numeric > (t.filter->>'from')::numeric
      and not exists (
        select from jsonb_array_elements(t.dimensions - 0) d
        where not exists (
            select from jsonb_array_elements(o.dimensions - 0) h
            where h->>'column' = d->>'column'
              and (h->>'from')::numeric <= (d->>'from')::numeric and (h->>'until')::numeric >= (d->>'until')::numeric)))
returning t.priority, t.chunk_schema, t.chunk_name
