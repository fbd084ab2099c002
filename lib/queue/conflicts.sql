-- Planned chunks and slices, by their place in the plan, whose task has a range that
-- does not fit the planned one. That of a chunk has to overlap or adjoin it. That of a
-- slice has to cover it or be covered: how a slice is read is known for one of them,
-- and for the planned one if the task is to change. Of the task's range counts what is
-- inside the extent, which may have changed since.
select p.n, t.filter
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
            $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]) with ordinality
     as p(schema, name, slice, source_schema, source_name, range_from, range_until, chunk_from, chunk_until, n)
join __backfill.task t on t.key = array_remove(array[p.schema, p.name, p.slice], null)
cross join lateral (select greatest((t.filter->>'from')::bigint, p.chunk_from),
    least((t.filter->>'until')::bigint, p.chunk_until)) as old(range_from, range_until)
where old.range_from < old.range_until
  and case when t.kind = 'chunk' then p.range_from > old.range_until or p.range_until < old.range_from
           else (p.range_from > old.range_from or p.range_until < old.range_until)
            and (p.range_from < old.range_from or p.range_until > old.range_until
                 or (t.hypertable_schema, t.hypertable_name) <> (p.source_schema, p.source_name)
                 or t.dimensions->0->>'until' <> p.chunk_until::text) end
order by p.n
