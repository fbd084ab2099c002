-- What became of the tasks that a lane has handed out: are they over, or has a
-- bf-load passed them over, which holds a shared lock then (PassOver)? That is
-- found out by trying to take the lock and giving it back at once.
select n,
       not exists (select from __backfill.task
                   where priority = n and worked is null and (failed is null or failed < $2)),
       case when pg_try_advisory_lock($3, n::int) then not pg_advisory_unlock($3, n::int) else true end
from unnest($1::bigint[]) n
