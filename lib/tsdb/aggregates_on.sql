-- The continuous aggregates on the hypertable $1 (by its number) and those on them, parents
-- first: what each is on, and whether its query reads other relations as well, or the role
-- may not read it.
with recursive below(id, raw, depth) as (
    select mat_hypertable_id, raw_hypertable_id, 1
    from _timescaledb_catalog.continuous_agg where raw_hypertable_id = $1
    union all
    select ca.mat_hypertable_id, ca.raw_hypertable_id, depth + 1
    from below join _timescaledb_catalog.continuous_agg ca on ca.raw_hypertable_id = below.id)
select ca.mat_hypertable_id, below.raw,
       (select count(distinct d.refobjid) > 1
        from pg_rewrite r
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
        where r.ev_class = format('%I.%I', ca.direct_view_schema, ca.direct_view_name)::regclass),
       not has_table_privilege(format('%I.%I', h.schema_name, h.table_name), 'select')
from below
join _timescaledb_catalog.continuous_agg ca on ca.mat_hypertable_id = below.id
join _timescaledb_catalog.hypertable h on h.id = ca.mat_hypertable_id
order by depth, 1
