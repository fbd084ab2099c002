-- What a refresh of the aggregate would look at: the ranges (both ends
-- inclusive) that are logged for it, those logged for its hypertable and not
-- handed down to the aggregates yet, and those that an interrupted refresh left
-- behind (since 2.20; filled in at the end).
select lowest_modified_value, greatest_modified_value
from _timescaledb_catalog.continuous_aggs_materialization_invalidation_log where materialization_id = $1
union all
select lowest_modified_value, greatest_modified_value
from _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log where hypertable_id = $2
{ranges}
