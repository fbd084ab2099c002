-- What the queries of continuous aggregates need: of which view ($1), the catalog
-- and OID of each object.
select w.ev_class, d.refclassid, d.refobjid
from pg_rewrite w
join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
where w.ev_class = any($1::oid[]) and d.refobjid <> w.ev_class
group by 1, 2, 3
order by 1, 2, 3
