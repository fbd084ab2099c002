-- The processes of bf that are connected to this database, with the task that each
-- has in hand (advisory lock of class $1) and how far its COPY is. A bf-load may copy
-- in several parts: the bytes are those of the part that runs. What stands for the
-- view pg_stat_progress_copy is in Look.
select a.pid, a.application_name, coalesce(host(a.client_addr), ''), coalesce(t.priority, 0),
       coalesce(t.view_schema, t.into_schema, t.hypertable_schema, ''),
       coalesce(t.view_name, t.into_name, t.hypertable_name, ''),
       coalesce(t.chunk_name, ''), case when t.kind <> 'chunk' then t.filter end, coalesce(t.est_bytes, 0),
       coalesce(p.bytes_processed, 0), coalesce(p.tuples_processed, 0),
       greatest(coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0), 0)::float8
from pg_stat_activity a
left join pg_locks l on l.pid = a.pid and l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objsubid = 2
     and l.granted and l.database = a.datid
left join __backfill.task t on t.priority = l.objid::bigint
left join {copies} on p.pid = a.pid
where a.datname = current_database()
  and a.application_name in ('bf-stage', 'bf-load', 'bf-caggs', 'bf-verify', 'bf-verify worker')
order by a.backend_start, a.pid
