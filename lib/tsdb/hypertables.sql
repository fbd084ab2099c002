-- Hypertables that hold data of users: ordinary ones and the materialization
-- hypertables behind continuous aggregates, not the internal ones that hold
-- compressed chunks (compression_state 2). timescaledb_information.hypertables
-- leaves the materialization hypertables out, hence the catalog. Compression is
-- enabled when compression_state is 1, from 2.29 on when bit 4 of status is set.
select h.id, n.nspname, c.relname, c.oid,
       ca.user_view_schema, ca.user_view_name, ca.raw_hypertable_id,
       coalesce((to_jsonb(ca)->>'finalized')::boolean, true),
       h.compression_state = 1 or coalesce((to_jsonb(h)->>'status')::int, 0) & 4 = 4
from _timescaledb_catalog.hypertable h
join pg_namespace n on n.nspname = h.schema_name
join pg_class c on c.relnamespace = n.oid and c.relname = h.table_name
left join _timescaledb_catalog.continuous_agg ca on ca.mat_hypertable_id = h.id
where h.compression_state <> 2 and {which}
order by h.id
