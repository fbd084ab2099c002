-- What the server makes by itself: triggers whose function is TimescaleDB's, and
-- the rules of the views of continuous aggregates ($1).
select 'pg_trigger'::regclass::oid, t.oid
from pg_extension e
join pg_depend m on m.refclassid = 'pg_extension'::regclass and m.refobjid = e.oid and m.deptype = 'e'
    and m.classid = 'pg_proc'::regclass
join pg_trigger t on t.tgfoid = m.objid
where e.extname = 'timescaledb'
union all
select 'pg_rewrite'::regclass::oid, oid from pg_rewrite where ev_class = any($1::oid[])
