-- The policies of hypertables, by the id in a job's configuration: the
-- hypertable columns of the jobs view show the materialization hypertable up
-- to 2.19 and the user view later. A job that has never run has no statistics. The
-- time zone is what alter_job has to be given where it takes one: it sets it to
-- null otherwise. {jobs} is the catalog of jobs (package tsdb).
select j.job_id, j.proc_name,
       coalesce(j.config->>'hypertable_id', j.config->>'mat_hypertable_id')::int,
       j.scheduled,
       coalesce(s.job_status = 'Running', false),
       coalesce((select b.timezone from {jobs} b
                 where b.id = j.job_id
                     and exists (select from pg_proc where proname = 'alter_job' and 'timezone' = any(proargnames))),
                     '')
from timescaledb_information.jobs j
left join timescaledb_information.job_stats s on s.job_id = j.job_id
where j.proc_name in ('policy_refresh_continuous_aggregate', 'policy_retention', 'policy_compression', 'policy_reorder')
  and coalesce(j.config->>'hypertable_id', j.config->>'mat_hypertable_id')::int = any($1)
order by 1
