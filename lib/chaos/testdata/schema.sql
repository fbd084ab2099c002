-- The hypertables of both sides. "linked" references a table that the
-- application writes to, "coarse" has chunks of another length on the target,
-- "packed" is compressed on the source where the edition can, with settings that
-- the hypertable does not have any longer, "tight" in part, with a constraint that only the
-- target has: its rows travel. "watched" is compressed, too, and has a row trigger, which
-- fires once for each row. "heaped" is a hypertable on the target only. "listed_rows" go into
-- a file, from which they get into the target's hypertable "listed".
create table device (id int primary key, name text);
insert into device select n, 'device ' || n from generate_series(1, 20) n;

create table plain (time timestamptz not null, dev int not null, val float8, note text);
create table linked (time timestamptz not null, dev int not null references device, val float8,
    primary key (time, dev));
create table coarse (time timestamptz not null, dev int not null references device, val float8);
create table hashed (time timestamptz not null, dev int not null, part int not null, val float8);
create table packed (time timestamptz not null, dev int not null, val float8, note text);
create table tight (time timestamptz not null, dev int not null, val float8, note text);
create table watched (time timestamptz not null, dev int not null, val float8, note text);
create table heaped (time timestamptz not null, dev int not null, val float8, note text);
create table listed_rows (time timestamptz not null, dev int not null, val float8, note text);
create table seen (like watched);
create function seen() returns trigger language plpgsql as
    'begin insert into public.seen select new.*; return null; end';
create trigger seen after insert on watched for each row execute function seen();
select create_hypertable('plain', 'time', chunk_time_interval => interval '1 day');
select create_hypertable('linked', 'time', chunk_time_interval => interval '1 day');
select create_hypertable('coarse', 'time', chunk_time_interval => interval '{coarse}');
select create_hypertable('hashed', 'time', 'dev', 2, chunk_time_interval => interval '1 day');
select create_hypertable('packed', 'time', chunk_time_interval => interval '1 day');
select create_hypertable('tight', 'time', chunk_time_interval => interval '1 day');
select create_hypertable('watched', 'time', chunk_time_interval => interval '1 day');
-- The partition of a device, so that digests can tell the chunks of a day apart.
create function part(dev int) returns int language sql immutable as
    'select case when {hash}(dev) < 1073741823 then 0 else 1 end';
