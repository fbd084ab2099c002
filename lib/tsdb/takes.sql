-- The public functions and procedures of TimescaleDB with the names of their arguments,
-- of overloaded ones together.
select p.proname, array_agg(distinct a.name) filter (where a.name is not null)
from pg_extension e
join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.classid = 'pg_proc'::regclass
    and d.deptype = 'e'
join pg_proc p on p.oid = d.objid and p.pronamespace = e.extnamespace
left join lateral unnest(p.proargnames) a(name) on true
where e.extname = 'timescaledb'
group by 1
