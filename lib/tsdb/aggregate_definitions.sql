-- What continuous aggregates were made with, one JSON object each, parents
-- first as they are older. The query is that of the direct view: renamed columns
-- have their new names there, and a parent is named by its user view. An index
-- is automatic where it has the name that the server gives.
select jsonb_strip_nulls(jsonb_build_object(
           'id', ca.mat_hypertable_id,
           'view', jsonb_build_object('schema', ca.user_view_schema, 'name', ca.user_view_name),
           'oid', v.oid::bigint, 'direct', d.oid::bigint,
           'owner', pg_get_userbyid(v.relowner),
           'materialized_only', ca.materialized_only,
           'partial', nullif(not coalesce((to_jsonb(ca)->>'finalized')::boolean, true), false),
           'granular', nullif((to_jsonb(ca)->>'granular_refresh_enabled')::boolean, false),
           'nested', nullif(ca.parent_mat_hypertable_id is not null, false),
           'query', pg_get_viewdef(d.oid),
           'no_bucket_index', nullif(not exists (
               select from pg_index i
               join pg_class ic on ic.oid = i.indexrelid
               where i.indrelid = m.oid and starts_with(ic.relname, m.relname || '_')
                 and pg_get_indexdef(i.indexrelid)
                     = format('CREATE INDEX %I ON %I.%I USING btree (%I DESC)',
                              ic.relname, mn.nspname, m.relname, dim.column_name)), false),
           'indexes', (
               select jsonb_agg(jsonb_build_object(
                          'name', case when not starts_with(ic.relname, m.relname || '_') then ic.relname end,
                          'unique', i.indisunique,
                          'definition', def.rest) order by ic.relname)
               from pg_index i
               join pg_class ic on ic.oid = i.indexrelid
               cross join lateral (
                   select substr(pg_get_indexdef(i.indexrelid),
                                 length(format('CREATE %sINDEX %I ON %I.%I ',
                                     case when i.indisunique then 'UNIQUE ' else '' end,
                                     ic.relname, mn.nspname, m.relname)) + 1)) def(rest)
               where i.indrelid = m.oid
                 -- The server creates this one without being asked.
                 and not (starts_with(ic.relname, m.relname || '_')
                     and def.rest = format('USING btree (%I DESC)', dim.column_name)))))
from _timescaledb_catalog.continuous_agg ca
join _timescaledb_catalog.hypertable h on h.id = ca.mat_hypertable_id
join pg_namespace mn on mn.nspname = h.schema_name
join pg_class m on m.relnamespace = mn.oid and m.relname = h.table_name
join pg_class v on v.relname = ca.user_view_name
    and v.relnamespace = (select oid from pg_namespace where nspname = ca.user_view_schema)
join pg_class d on d.relname = ca.direct_view_name
    and d.relnamespace = (select oid from pg_namespace where nspname = ca.direct_view_schema)
left join lateral (
    select column_name from _timescaledb_catalog.dimension where hypertable_id = h.id order by id limit 1) dim on true
order by ca.mat_hypertable_id
