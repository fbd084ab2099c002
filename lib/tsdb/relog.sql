-- Take what some transactions ($2) have logged for the hypertable $1 back, but for what
-- is in these spans ($3, $4).
with log as (
    delete from _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log
    where hypertable_id = $1 and xmin::text = any($2)
    returning lowest_modified_value as lowest, greatest_modified_value as greatest
)
insert into _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log
    (hypertable_id, lowest_modified_value, greatest_modified_value)
select $1, greatest(lowest, s.from), least(greatest, s.until - 1)
from log join unnest($3::bigint[], $4::bigint[]) s("from", until) on s.from <= greatest and s.until > lowest
