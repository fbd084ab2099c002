-- Where bf-load does not keep the order of locks, a line each. $1: class of the
-- turn's advisory lock; $2: milliseconds after which a wait with a strong lock is
-- taken for one without end; $3: class of the lock of those that hold them as long as
-- nobody waits.
--
-- Strong is what keeps readers, writers or new chunks out of a hypertable (rank 3)
-- or readers and writers out of a chunk, or its compressed relation (rank 4).
with loads as (
    select pid, query from pg_stat_activity where application_name = 'bf-load' and datname = current_database()
), hypertables as (
    select format('%I.%I', schema_name, table_name)::regclass as oid from _timescaledb_catalog.hypertable
), chunks as (
    select i.inhrelid as oid from pg_inherits i join hypertables h on i.inhparent = h.oid
), locks as materialized (
    select l.*, (now_ms - extract(epoch from l.waitstart) * 1000)::int as waited, loads.query,
           case when l.locktype = 'advisory' and l.classid in ($1, $3) then 2
                when l.relation in (select oid from hypertables) then 3
                when l.relation in (select oid from chunks) then 4
                else 5 end as rank
    from pg_locks l join loads using (pid), (select extract(epoch from clock_timestamp()) * 1000 as now_ms) n
), strong as (
    select * from locks
    where granted and (mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        and rank in (3, 4)
                       or mode = 'ShareUpdateExclusiveLock' and rank = 3)
      and locktype = 'relation'
)
select format('%s on a %s is held without the turn: %s', s.mode, case s.rank when 3 then 'hypertable'
    else 'chunk' end, left(s.query, 100))
from strong s where not exists (select from locks t where t.pid = s.pid and t.rank = 2 and t.granted)
union all
select format('waits for %s of rank %s with %s of rank %s, for %s: %s', w.mode, w.rank, s.mode, s.rank,
              case when w.rank <= s.rank and w.rank < 4 then 'a moment, which is out of order'
                  else 'ever' end, left(s.query, 100))
from locks w join strong s using (pid)
where not w.granted and (w.rank <= s.rank and w.rank < 4 and w.relation is distinct from s.relation or w.waited > $2)
