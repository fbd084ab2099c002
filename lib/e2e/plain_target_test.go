package e2e

import (
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestPlainTarget: whatever the target holds, and however it keeps it, the rows of the
// source are there in the end, and what is not in the range stays.
func TestPlainTarget(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `
            create table comp (time timestamptz not null, dev int, v int);
            insert into comp select '2024-01-01'::timestamptz + i * interval '1 minute', i % 3, i
                from generate_series(0, 4319) i;
            create index on comp (time);
            create table gen (v int, twice int generated always as (v * 2) stored, gone int, time timestamptz not null,
                more int,
                id int generated always as identity);
            alter table gen drop column gone;
            insert into gen (v, time, more) select i, '2024-01-01'::timestamptz + i * interval '1 hour', i
                from generate_series(0, 47) i;
            create index on gen (time);
            create table old (at timestamp, v int);
            insert into old select '2024-01-01'::timestamp + i * interval '1 hour', i from generate_series(0, 47) i;
            create view seen as select at at time zone 'UTC' as time, v from old;
            create materialized view kept as select * from seen;
            create index on kept (time);
            create extension postgres_fdw;
            do $$ begin execute format('create server far foreign data wrapper postgres_fdw
                options (host %L, port %L, dbname %L)',
                split_part(current_setting('unix_socket_directories'), ',', 1),
                    current_setting('port'), current_database()); end $$;
            create user mapping for current_user server far options (user 'postgres');
            create foreign table abroad (time timestamptz, v int) server far options (table_name 'kept')`)
		p.dst.Exec(t, `
            create table comp (time timestamptz not null, dev int, v int);
            select create_hypertable('comp', 'time', chunk_time_interval => interval '1 day');
            create table gen (id int generated always as identity, time timestamptz not null, more int, v int,
                twice int generated always as (v * 2) stored, half int generated always as (v / 2) stored);
            select create_hypertable('gen', 'time', chunk_time_interval => interval '1 day')`)
		for _, name := range []string{"seen", "kept", "abroad"} {
			p.dst.Exec(t, "create table "+name+" (time timestamptz not null, v int); select create_hypertable('"+name+
				"', 'time', chunk_time_interval => interval '1 day')")
		}
		full := in.Target.Full
		if full {
			p.dst.Exec(t, `alter table comp set (timescaledb.compress, timescaledb.compress_segmentby = 'dev');
                insert into comp select '2024-01-01'::timestamptz + i * interval '1 minute', 9, -i
                    from generate_series(0, 4319) i;
                select compress_chunk(show_chunks('comp'));
                insert into comp values ('2024-01-02 03:00', 9, -1), ('2024-01-03 23:00', 9, -7)`)
			p.dst.Exec(t, `create materialized view hourly
                with (timescaledb.continuous, timescaledb.materialized_only = true) as
                select time_bucket('1 hour', time) as time, count(*), sum(v) from comp group by 1 with no data`)
		}
		p.stage(t, "--until", "2024-01-03 12:00:00+00", "--scan", "any")
		if r := p.lane(t); r.status != 0 {
			t.Fatalf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		const before = " where time < '2024-01-03 12:00:00+00'"
		p.same(t, "select time, dev, v from comp"+before)
		for _, q := range []string{"select v, twice, time, more, id from gen",
			"select * from seen", "select * from kept", "select * from abroad"} {
			p.same(t, q)
		}
		if full {
			p.ask(t, "select count(*), count(*) filter (where dev = 9) from comp "+
				"where time >= '2024-01-03 12:00:00+00'", "721|721")
			p.ask(t, "select bool_and(is_compressed) from timescaledb_information.chunks "+
				"where hypertable_name = 'comp' and range_end <= '2024-01-03'", "t")
			p.ok(t, "", "bf-caggs", "--target", p.target)
			diff(t, "hourly", sorted(t, p.dst,
				"select time_bucket('1 hour', time), count(*), sum(v) from comp"+before+" group by 1"),
				sorted(t, p.dst, "select * from hourly"+before))
		}
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 0 || strings.Contains(r.stdout, "differs") {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		r = p.sh(t, `bf-verify --target "$TARGET" --all --source "$SOURCE" --method summary;
            bf-chunks --target "$TARGET" --done | bf-verify --source "$SOURCE" - | bf-verify --target "$TARGET" -`)
		if r.status != 0 {
			t.Errorf("bf-verify by halves: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		p.dst.Exec(t, "update gen set more = -1 where v = 5")
		r = p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET" --all`)
		if r.status != 3 || strings.Count(r.stdout, `"status":"differs"`) != 1 {
			t.Errorf("bf-verify after an update: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		p.ok(t, "", "bf-clean", "--target", p.target)
	})
}

// TestColumnstore: rows of a plain table arrive compressed if that is asked for, in whole
// chunks; and staging again without it does not undo what is done.
func TestColumnstore(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `create table m (time timestamptz not null, dev int, v int);
            insert into m select '2024-01-01'::timestamptz + i * interval '10 seconds', i % 7, i
            from generate_series(0, 25919) i;
            create index on m (time); create table rows as select * from m; create index on rows (time)`)
		for _, name := range []string{"m", "rows"} {
			p.dst.Exec(t, "create table "+name+" (time timestamptz not null, dev int, v int);"+
				" select create_hypertable('"+name+"', 'time', chunk_time_interval => interval '1 day')")
		}
		p.dst.Exec(t, "alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'dev')")
		p.stage(t, "--until", "2024-01-03 12:00:00+00", "--columnstore")
		if r := p.lane(t); r.status != 0 {
			t.Fatalf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		p.ask(t, "select hypertable_name, range_start::date, is_compressed from timescaledb_information.chunks",
			"m|2024-01-01|t", "m|2024-01-02|t", "m|2024-01-03|f",
			"rows|2024-01-01|f", "rows|2024-01-02|f", "rows|2024-01-03|f")
		for _, name := range []string{"m", "rows"} {
			p.same(t, "select * from "+name+" where time < '2024-01-03 12:00:00+00'")
		}
		p.stage(t, "--until", "2024-01-03 18:00:00+00")
		if r := p.lane(t); r.status != 0 {
			t.Fatalf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		p.same(t, "select * from m where time < '2024-01-03 18:00:00+00'")
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) != 6 {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}
