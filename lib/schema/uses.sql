-- The objects of TimescaleDB's that users' objects need, and which those are: a target of
-- another version may lack some. Of continuous aggregates the direct views ($1) count and
-- the user views ($2) do not, as the server makes them; nor do chunks and TimescaleDB's
-- own triggers.
select i.type, i.identity, d.classid, d.objid
from pg_extension e
join pg_depend m on m.refclassid = 'pg_extension'::regclass and m.refobjid = e.oid and m.deptype = 'e'
join pg_depend d on d.refclassid = m.classid and d.refobjid = m.objid and d.deptype in ('n', 'a')
    and d.classid <> 'pg_trigger'::regclass
cross join lateral pg_identify_object(m.classid, m.objid, 0) i
left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
left join pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
left join pg_attrdef a on d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
left join pg_class c on c.oid = case d.classid when 'pg_class'::regclass then d.objid
                                else coalesce(w.ev_class, nullif(k.conrelid, 0), a.adrelid) end
left join pg_namespace n on n.oid = c.relnamespace
where e.extname = 'timescaledb'
  and m.classid in ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_class'::regclass)
  and not exists (select from pg_depend x where x.classid = d.classid and x.objid = d.objid and x.deptype = 'e')
  and (c.oid is null or c.oid = any($1::oid[])
       or n.nspname !~ '^_timescaledb' and c.oid <> all($2::oid[])
          and not exists (select from pg_depend x
              where x.classid = 'pg_class'::regclass and x.objid = c.oid and x.deptype = 'e'))
group by 1, 2, 3, 4
order by 1, 2, 3, 4
