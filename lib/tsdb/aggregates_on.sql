-- The continuous aggregates on the hypertable $1 (by its number), and whether their
-- queries read other relations as well, or the role may not read them.
select ca.mat_hypertable_id,
       (select count(distinct d.refobjid) > 1
        from pg_rewrite r
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
        where r.ev_class = format('%I.%I', ca.direct_view_schema, ca.direct_view_name)::regclass),
       not has_table_privilege(format('%I.%I', h.schema_name, h.table_name), 'select')
from _timescaledb_catalog.continuous_agg ca
join _timescaledb_catalog.hypertable h on h.id = ca.mat_hypertable_id
where ca.raw_hypertable_id = $1
order by 1
