-- Pause the refresh policy of a continuous aggregate on top of another one.
create schema {probe};
create table {probe}.h (t timestamptz not null);
select {public}.create_hypertable('{probe}.h', 't');
create materialized view {probe}.a with (timescaledb.continuous) as
    select {public}.time_bucket('1 hour', t) as t from {probe}.h group by 1 with no data;
create materialized view {probe}.b with (timescaledb.continuous) as
    select {public}.time_bucket('1 day', t) as t from {probe}.a group by 1 with no data;
select {public}.alter_job({public}.add_continuous_aggregate_policy('{probe}.b', null, null, interval '1 day'),
    scheduled => false)
