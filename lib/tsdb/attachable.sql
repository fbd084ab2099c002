-- Attach a table to a scratch hypertable, then one with a row outside of the chunk,
-- which must be refused; attachable_is.sql looks at the result.
-- {...} are filled in (package tsdb).
create table {scratch} (at bigint not null, v int check (v > 0), unique (at));
select {public}.create_hypertable('{scratch}'::regclass, 'at'::name, chunk_time_interval => 10::bigint,
    create_default_indexes => false);
create table {good} (like {scratch} including constraints);
alter table {good} add unique (at);
create table {bad} (like {scratch} including constraints);
insert into {bad} values (1, 1);
do $$
begin
    perform from {functions}.create_chunk('{scratch}'::regclass, '{"at": [0, 10]}'::jsonb, null, null,
        '{good}'::regclass);
    perform from {functions}.create_chunk('{scratch}'::regclass, '{"at": [10, 20]}'::jsonb, null, null,
        '{bad}'::regclass);
exception when check_violation then
    -- The block is undone: attach the good one again.
    perform from {functions}.create_chunk('{scratch}'::regclass, '{"at": [0, 10]}'::jsonb, null, null,
        '{good}'::regclass);
end $$
