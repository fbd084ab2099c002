-- What depends on the objects ($1 their catalogs, $2 their OIDs), directly or through
-- others, themselves included, and its description; '' where that of another one says it.
-- A rule stands for its view, a default and a check for their table or domain.
with recursive dependent(classid, objid) as (
    select * from unnest($1::oid[], $2::oid[])
  union
    select x.classid, x.objid
    from dependent r
    join pg_depend d on d.refclassid = r.classid and d.refobjid = r.objid
    cross join lateral (
        select d.classid, d.objid
      union all
        select 'pg_class'::regclass::oid, ev_class from pg_rewrite
            where d.classid = 'pg_rewrite'::regclass and oid = d.objid
      union all
        select 'pg_class'::regclass::oid, adrelid from pg_attrdef
            where d.classid = 'pg_attrdef'::regclass and oid = d.objid
      union all
        select 'pg_class'::regclass::oid, conrelid from pg_constraint
        where d.classid = 'pg_constraint'::regclass and oid = d.objid and contype = 'c' and conrelid <> 0
      union all
        select 'pg_type'::regclass::oid, contypid from pg_constraint
        where d.classid = 'pg_constraint'::regclass and oid = d.objid and contypid <> 0) x(classid, objid)
)
select d.classid, d.objid,
       -- The triggers of a foreign key are parts of it, and so are keys to partitions.
       case when exists (select from pg_trigger t
           where d.classid = 'pg_trigger'::regclass and t.oid = d.objid and t.tgisinternal)
                 or exists (select from pg_constraint k
                     where d.classid = 'pg_constraint'::regclass and k.oid = d.objid and k.conparentid <> 0) then ''
            when d.classid in ('pg_proc'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass,
                'pg_constraint'::regclass)
                 or c.relkind in ('r', 'p', 'v', 'm')
                     and c.relnamespace <> coalesce(to_regnamespace('_timescaledb_internal'), 0)
            then pg_describe_object(d.classid, d.objid, 0) else '' end
from dependent d
left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
order by 1, 2
