-- What only the full edition has: compression, continuous aggregates, jobs.
alter table "Größe"."Mess Werte" set (timescaledb.compress, timescaledb.compress_segmentby = '"Gerät", z',
    timescaledb.compress_orderby = '"Zeit" desc nulls last, serial, id nulls first');
alter table zähler set (timescaledb.compress, timescaledb.compress_segmentby = '"W"',
    timescaledb.compress_orderby = 'n desc');
alter table "J son" set (timescaledb.compress, timescaledb.compress_segmentby = 'v',
    timescaledb.compress_orderby = 'doc');
alter table "Nackt" set (timescaledb.compress, timescaledb.compress_segmentby = '',
    timescaledb.compress_orderby = 't desc', timescaledb.compress_chunk_time_interval = '24 hours');

-- Aggregates, three deep, in mixed settings. A name as late as can be comes
-- before its parent in a dump.
create materialized view "Größe"."z Stunde" with (timescaledb.continuous, timescaledb.materialized_only = false) as
    select time_bucket('1 hour', "Zeit") as "Eimer", "Gerät", z, max("Wert") as old, count(*) as n,
           avg("Wert") filter (where "Wert" > 0) as "Mittel"
    from "Größe"."Mess Werte" group by 1, 2, 3 with no data;
alter materialized view "Größe"."z Stunde" rename column old to "Größter";
create materialized view "Größe"."m Tag"
    with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
    select time_bucket('1 day', "Eimer") as "Tag", "Gerät", max("Größter") as m, sum(n) as n from "Größe"."z Stunde"
        group by 1, 2 with no data;
create materialized view "Größe"."a Monat" with (timescaledb.continuous, timescaledb.materialized_only = false) as
    select time_bucket('1 month', "Tag") as "Monat", "Größe"."Letzte"(m) as "M", sum(n) as n from "Größe"."m Tag"
        group by 1 with no data;
create materialized view "Zonen" with (timescaledb.continuous, timescaledb.materialized_only = true) as
    select time_bucket('1 day', "Zeit", 'Europe/Berlin') as t, "Gerät" % 2 as "Rest",
           percentile_cont(0.5) within group (order by "Wert") as "P50"
    from "Größe"."Mess Werte" group by 1, 2 with no data;
create materialized view "Zähl ung" with (timescaledb.continuous, timescaledb.materialized_only = true) as
    select time_bucket(100, n) as b, "W", count(*), first(k, n) from zähler group by 1, 2 having count(*) > 0
        with no data;
alter materialized view "Zähl ung" rename to "Zählung";
create index "Mein Index" on "Größe"."z Stunde" ("Größter") where z is not null;
create index on "Größe"."m Tag" ("Gerät", "Tag" desc);
-- The index that the server makes of itself is not wanted.
do $$begin
  execute (select 'drop index ' || indexrelid::regclass
           from pg_index join timescaledb_information.continuous_aggregates
                on indrelid = format('%I.%I', materialization_hypertable_schema,
                                     materialization_hypertable_name)::regclass
           where view_name = 'Zonen' and indnkeyatts = 1);
end$$;
select set_chunk_time_interval(format('%I.%I', materialization_hypertable_schema,
    materialization_hypertable_name)::regclass, interval '17 days')
from timescaledb_information.continuous_aggregates where view_name = 'm Tag';
alter materialized view "Größe"."z Stunde"
    set (timescaledb.compress, timescaledb.compress_segmentby = '"Gerät"', timescaledb.compress_orderby = '"Eimer"');
alter materialized view "Zonen" owner to {owner};
comment on view "Größe"."z Stunde" is 'hours';
comment on column "Größe"."z Stunde"."Eimer" is 'bucket';
grant select on "Größe"."z Stunde" to {reader};

-- What depends on aggregates.
create view "Größe"."1 Sicht" as select "Tag", sum(m) as m from "Größe"."m Tag" group by 1;
create materialized view "Größe"."0 Stand" as select * from "Größe"."1 Sicht";
create index "0 Index" on "Größe"."0 Stand" (m);
create function "Größe"."0 Zeilen"() returns setof "Größe"."z Stunde" language sql stable as
    'select * from "Größe"."z Stunde"';
create function "Größe"."0 Summe"() returns numeric language sql stable begin atomic select sum(m)
    from "Größe"."1 Sicht"; end;
create trigger "Statt" instead of insert on "Größe"."1 Sicht" for each row execute function "Größe"."Instead"();
grant select on "Größe"."1 Sicht" to {reader};
comment on view "Größe"."1 Sicht" is 'view';

-- Jobs.
select add_retention_policy('"Größe"."Mess Werte"', interval '50 years', schedule_interval => interval '2 days');
select alter_job(add_compression_policy('"Größe"."Mess Werte"', interval '40 years',
    schedule_interval => interval '12 hours'),
    config => jsonb_build_object('hypertable_id', h.id, 'compress_after', '40 years', 'maxchunks_to_compress', 3,
    'verbose_log', true))
from _timescaledb_catalog.hypertable h where table_name = 'Mess Werte';
select alter_job(add_retention_policy('zähler', bigint '300000'), scheduled => false, max_retries => 7,
    retry_period => '3 min', max_runtime => '1 hour');
select add_reorder_policy('"Größe"."Mess Werte"', 'Einmal');
select add_continuous_aggregate_policy('"Größe"."z Stunde"', interval '90 days', interval '1 hour 30 minutes',
    interval '20 minutes', initial_start => '2040-01-01 03:00+01', timezone => 'Europe/Berlin');
select add_continuous_aggregate_policy('"Größe"."m Tag"', null, interval '1 day', interval '1 day');
select add_continuous_aggregate_policy('"Zählung"', bigint '30000', bigint '100', interval '1 day');
select add_compression_policy('"Größe"."z Stunde"', interval '100 days', schedule_interval => interval '1 day');
select add_retention_policy('"Größe"."m Tag"', interval '10 years');
select add_job('"Größe"."Do it"', '3 days', config => '{"a": null, "b": "it''s", "hypertable_id": 4711}',
    initial_start => '2041-01-01', check_config => '"Größe"."Check it"', timezone => 'Asia/Tokyo');
set role {owner};
select add_job('"Größe"."Do it"', '1 hour', fixed_schedule => false, scheduled => false);
select add_retention_policy('"Nackt"', interval '33 years');
reset role;
