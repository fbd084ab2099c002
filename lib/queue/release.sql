-- Of each task that a lane has handed out: is it done or has it failed, and has a
-- bf-load passed it over? In that case the bf-load holds a shared advisory lock
-- (PassOver), and trying to take the same lock fails.
select n,
       not exists (select from __backfill.task
                   where priority = n and worked is null and (failed is null or failed < $2)),
       case when pg_try_advisory_lock($3, n::int) then not pg_advisory_unlock($3, n::int) else true end
from unnest($1::bigint[]) n
