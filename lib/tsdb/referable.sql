-- A foreign key that references a hypertable.
create schema {probe};
create table {probe}.h (t int primary key);
select {public}.create_hypertable('{probe}.h', 't', chunk_time_interval => 10);
create table {probe}.r (t int references {probe}.h)
