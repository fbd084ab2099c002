-- Jobs of users: policies and actions of their own, one JSON object each. The
-- view of the jobs lacks the time zone; the table behind it has moved ({jobs}).
-- Up to 2.10 a job has no fixed schedule.
select jsonb_strip_nulls(jsonb_build_object(
           'id', j.id,
           'proc', jsonb_build_object('schema', j.proc_schema, 'name', j.proc_name),
           'owner', pg_get_userbyid(j.owner::oid),
           'schedule_interval', j.schedule_interval::text,
           'max_runtime', j.max_runtime::text,
           'max_retries', j.max_retries,
           'retry_period', j.retry_period::text,
           'scheduled', j.scheduled,
           'fixed', to_jsonb(j)->'fixed_schedule',
           'initial_start', to_jsonb(j)->>'initial_start',
           'timezone', to_jsonb(j)->>'timezone',
           'config', case when jsonb_typeof(j.config) = 'object' then j.config end,
           'check', case when j.check_name <> ''
               then jsonb_build_object('schema', j.check_schema, 'name', j.check_name) end,
           -- The server appends the number.
           'name', regexp_replace(j.application_name, ' \[\d+\]$', ''),
           'of', case when ca.user_view_name is not null
               then jsonb_build_object('schema', ca.user_view_schema, 'name', ca.user_view_name)
                      when h.id is not null then jsonb_build_object('schema', h.schema_name, 'name', h.table_name) end))
       -- A null in a configuration means something: it is not stripped.
       || case when jsonb_typeof(j.config) = 'object' then jsonb_build_object('config', j.config) else '{}' end
from {jobs} j
left join _timescaledb_catalog.hypertable h
     on h.id = coalesce(case when jsonb_typeof(j.config->'hypertable_id') = 'number'
         then (j.config->>'hypertable_id')::int end,
                        case when jsonb_typeof(j.config->'mat_hypertable_id') = 'number'
                            then (j.config->>'mat_hypertable_id')::int end)
        and j.proc_schema like '\_timescaledb\_%'
left join _timescaledb_catalog.continuous_agg ca on ca.mat_hypertable_id = h.id
where j.id >= 1000
order by j.id
