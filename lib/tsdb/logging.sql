-- The numbers of this transaction and of those of its subtransactions that have logged
-- something for the hypertable $1: what it sees of transactions in progress is its own.
-- xmin is the lower half of a number; those of subtransactions come soon after its own.
-- Null where the role may not change the log.
with me as (
    select pg_current_xact_id()::text::bigint as id
), log as (
    select distinct xmin::text as id, me.id + (xmin::text::bigint - me.id & 4294967295) as long
    from _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log, me
    where hypertable_id = $1
)
select case when has_table_privilege('_timescaledb_catalog.continuous_aggs_hypertable_invalidation_log', 'insert')
             and has_table_privilege('_timescaledb_catalog.continuous_aggs_hypertable_invalidation_log', 'delete')
       then array(select (id & 4294967295)::text from me
             union select log.id from log, me
             where case when long - me.id < 1073741824 then pg_xact_status(long::text::xid8) = 'in progress' end) end
