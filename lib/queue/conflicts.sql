-- Planned chunks, by their place in the plan, whose task has a range that neither
-- overlaps nor adjoins the planned one. Of the task's range counts what is inside
-- the chunk's extent, which may have changed since.
select p.n, t.filter
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) with ordinality
     as p(chunk_schema, chunk_name, range_from, range_until, chunk_from, chunk_until, n)
join __backfill.task t using (chunk_schema, chunk_name)
cross join lateral (select greatest((t.filter->>'from')::bigint, p.chunk_from), least((t.filter->>'until')::bigint, p.chunk_until)) as old(range_from, range_until)
where old.range_from < old.range_until and (p.range_from > old.range_until or p.range_until < old.range_from)
order by p.n
