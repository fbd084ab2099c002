-- What TimescaleDB's catalogs and PostgreSQL's say of the schema, without the
-- numbers that differ between databases: a line each. It looks at the catalogs
-- as they are and knows nothing of what bf-clone-schema reads of them.
with names as (
    select h.id, coalesce(ca.user_view_schema, h.schema_name) || '.'
        || coalesce(ca.user_view_name, h.table_name) as name, h.schema_name, h.table_name
    from _timescaledb_catalog.hypertable h
    left join _timescaledb_catalog.continuous_agg ca on ca.mat_hypertable_id = h.id
    where h.compression_state <> 2
), lines(what, line) as (
    select 'hypertable ' || n.name,
           (to_jsonb(h) - '{id,table_name,compressed_hypertable_id}'::text[])::text
    from _timescaledb_catalog.hypertable h join names n using (id)
  union all
    select 'dimension ' || n.name || '.' || d.column_name, (to_jsonb(d) - '{id,hypertable_id}'::text[])::text
    from _timescaledb_catalog.dimension d join names n on n.id = d.hypertable_id
  union all
    select 'aggregate ' || n.name,
           (to_jsonb(ca) - '{mat_hypertable_id,raw_hypertable_id,parent_mat_hypertable_id}'::text[]
               - '{partial_view_name,direct_view_name}'::text[])::text
           || ' on ' || r.name || ' ' || coalesce(p.name, '')
    from _timescaledb_catalog.continuous_agg ca
    join names n on n.id = ca.mat_hypertable_id
    join names r on r.id = ca.raw_hypertable_id
    left join names p on p.id = ca.parent_mat_hypertable_id
  union all
    select 'bucket ' || n.name, (to_jsonb(f) - 'mat_hypertable_id')::text
    from _timescaledb_catalog.continuous_aggs_bucket_function f join names n on n.id = f.mat_hypertable_id
  union all
    select 'view ' || n.name || ' ' || v.kind,
           pg_get_viewdef(format('%I.%I', v.schema, v.name)::regclass) || ' ' || c.relowner::regrole
           -- What is granted by default is not granted on the internal views.
           || case v.kind when 'user' then coalesce(' ' || c.relacl::text, '') else '' end
    from _timescaledb_catalog.continuous_agg ca
    join names n on n.id = ca.mat_hypertable_id
    cross join lateral (values ('user', user_view_schema, user_view_name),
        ('partial', partial_view_schema, partial_view_name),
                               ('direct', direct_view_schema, direct_view_name)) v(kind, schema, name)
    join pg_class c on c.oid = format('%I.%I', v.schema, v.name)::regclass
  union all
    select 'table ' || n.name, c.relowner::regrole || ' ' || coalesce(c.relacl::text, '') || ' '
        || coalesce(c.reloptions::text, '') || ' '
        || concat_ws(',', c.relrowsecurity, c.relforcerowsecurity, c.relreplident)
    from names n join pg_class c on c.oid = format('%I.%I', n.schema_name, n.table_name)::regclass
  union all
    select 'column ' || n.name || '.' || a.attname,
           concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage,
               coalesce(attstattarget, -1), attacl::text, pg_get_expr(d.adbin, d.adrelid))
    from names n
    join pg_attribute a on a.attrelid = format('%I.%I', n.schema_name, n.table_name)::regclass and attnum > 0
        and not attisdropped
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  union all
    select 'index ' || n.name || ' ' || i.relname,
           concat_ws(' ', pg_get_indexdef(i.oid), x.indisclustered, x.indisreplident)
    from names n
    join pg_index x on x.indrelid = format('%I.%I', n.schema_name, n.table_name)::regclass
    join pg_class i on i.oid = x.indexrelid
  union all
    select 'constraint ' || n.name || ' ' || k.conname, pg_get_constraintdef(k.oid)
    from names n join pg_constraint k on k.conrelid = format('%I.%I', n.schema_name, n.table_name)::regclass
  union all
    select 'trigger ' || n.name || ' ' || t.tgname, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
    from names n join pg_trigger t on t.tgrelid = format('%I.%I', n.schema_name, n.table_name)::regclass
        and not t.tgisinternal
  union all
    select 'tablespace ' || n.name, t.tablespace_name from _timescaledb_catalog.tablespace t
        join names n on n.id = t.hypertable_id
  union all
    -- Numbers of hypertables in a configuration have the names of these.
    select 'job ' || coalesce(n.name, '') || ' ' || j.proc_name,
           (to_jsonb(j) - '{id,hypertable_id,application_name,config}'::text[])::text
               || regexp_replace(j.application_name, '\d+', 'N')
           || coalesce((j.config - '{hypertable_id,mat_hypertable_id}'::text[])::text, '')
           || case when j.proc_name like 'policy_%' then coalesce(' of ' || cn.name, '')
               else coalesce(j.config->>'hypertable_id', '') end
    from {jobs} j
    left join names n on n.id = j.hypertable_id
    left join names cn on cn.id = coalesce(j.config->>'hypertable_id', j.config->>'mat_hypertable_id')::int
    where j.id >= 1000
  {more}
)
select regexp_replace(what || ': ' || line,
    '(_materialized_hypertable_|_partial_view_|_direct_view_|_hyper_|_compressed_hypertable_|'
    || 'invalidation_trigger\(''?|cagg_watermark\()\d+', '\1N', 'g')
from lines order by 1
