-- Tasks of another source database that the plan cannot be added to: of chunks, which
-- have the same names in both if any chunk is planned ($2), and those of the same
-- hypertables. Directories of files are compared by slice, in unite().
select origin, count(*)
from __backfill.task
where origin <> $1
  and not (origin like 'csv:%' and $1 like 'csv:%')
  and (kind = 'chunk' and $2
       or (coalesce(view_schema, into_schema, hypertable_schema), coalesce(view_name, into_name, hypertable_name))
          in (select * from unnest($3::text[], $4::text[])))
group by 1
limit 1
