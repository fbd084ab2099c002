package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// ways returns how the tasks were loaded, without repetition.
func ways(t *testing.T, rs []*task.Result) []string {
	t.Helper()
	var ws []string
	for _, r := range rs {
		if r.Status != task.Loaded {
			t.Errorf("%s: %s: %s", r.Chunk, r.Status, r.Message)
		}
		if !slices.Contains(ws, r.Way) {
			ws = append(ws, r.Way)
		}
	}
	return ws
}

// shapes are hypertables of the target made by hand. The source has daily
// chunks and two hash partitions.
var shapes = []struct{ name, create string }{
	{"same", "select create_hypertable('h', 'ts', 'dev', 2, chunk_time_interval => interval '1 day')"},
	{"smaller interval", "select create_hypertable('h', 'ts', 'dev', 2, chunk_time_interval => interval '7 hours')"},
	{"larger interval", "select create_hypertable('h', 'ts', 'dev', 2, chunk_time_interval => interval '7 days')"},
	{"shifted", "select create_hypertable('h', 'ts', 'dev', 2, chunk_time_interval => interval '25 hours')"},
	{"more partitions", "select create_hypertable('h', 'ts', 'dev', 3, chunk_time_interval => interval '1 day')"},
	{"fewer partitions", "select create_hypertable('h', 'ts', 'dev', 1, chunk_time_interval => interval '1 day')"},
	{"no partitions", "select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')"},
	{"partitions by another column", "select create_hypertable('h', 'ts', 'v', 2, " +
		"chunk_time_interval => interval '1 day')"},
	{"another dimension", "select create_hypertable('h', 'ts', 'dev', 2, chunk_time_interval => interval '1 day'); " +
		"select add_dimension('h', 'v', chunk_time_interval => 50)"},
}

const shapeTable = `create table h (ts timestamptz not null, dev text, v int not null, w int)`

const shapeRows = `insert into h select '2024-01-01'::timestamptz + n * interval '3 hours',
    case when n % 7 <> 0 then 'dev' || n % 5 end, n from generate_series(0, 39) n`

// TestShapes copies into target hypertables that are cut otherwise, with
// dual-written rows in some of the chunks, or none, or empty ones; twice.
func TestShapes(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		for _, s := range shapes {
			t.Run(s.name, func(t *testing.T) {
				p := newPair(t, v)
				p.both(t, shapeTable)
				p.src.Exec(t, shapes[0].create)
				p.src.Exec(t, shapeRows)
				p.dst.Exec(t, s.create)
				// Chunks with dual-written rows, with rows the source does
				// not have, emptied ones, and absent ones.
				p.dst.Exec(t, shapeRows+" where n between 8 and 15 or n > 24")
				p.dst.Exec(t, "delete from h where v between 25 and 30")
				p.dst.Exec(t, "update h set w = 1 where v > 31")
				// What lies outside of the range stays.
				p.dst.Exec(t, "insert into h select ts, dev, -v, w from h where ts >= '2024-01-05 06:00'")
				outside := "select * from h where ts >= '2024-01-05 06:00' or ts < '2024-01-01 06:00'"
				before := sorted(t, p.dst, outside)
				inside := "select * from h where ts < '2024-01-05 06:00' and ts >= '2024-01-01 06:00'"

				p.stage(t, "--from", "2024-01-01 06:00", "--until", "2024-01-05 06:00")
				t.Log(ways(t, p.copy(t)))
				p.same(t, inside)
				diff(t, "outside of the range", before, sorted(t, p.dst, outside))

				all := p.chunks(t, "--all")
				ways(t, p.load(t, p.dump(t, all), "--force"))
				p.same(t, inside)
				diff(t, "outside of the range, after loading again", before, sorted(t, p.dst, outside))
				// The chunks go on as native ones do.
				p.dst.Exec(t, shapeRows)
				p.dst.Exec(t, "alter table h drop column w")
				p.dst.Exec(t, "insert into h "+
					"values ('2024-01-01', 'x', 1), ('2024-01-03', null, 1), ('2024-02-01', 'y', 1)")
			})
		}
	})
}

// TestOpenDimensions copies a hypertable with two open dimensions.
func TestOpenDimensions(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, "create table h (ts timestamptz not null, seq bigint not null, v int)")
		p.both(t, "select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')")
		p.src.Exec(t, "select add_dimension('h', 'seq', chunk_time_interval => 10)")
		p.dst.Exec(t, "select add_dimension('h', 'seq', chunk_time_interval => 15)")
		rows := "insert into h select '2024-01-01'::timestamptz + n * interval '1 hour', n - 20, n " +
			"from generate_series(0, 59) n"
		p.src.Exec(t, rows)
		p.dst.Exec(t, rows+" where n % 2 = 0")
		p.stage(t, "--until", "2024-01-03 06:00")
		ways(t, p.copy(t))
		p.same(t, "select * from h where ts < '2024-01-03 06:00'")
	})
}

// TestKeys copies tables with unique keys and foreign keys, to and fro.
func TestKeys(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		for _, s := range []string{"1 day", "7 days"} {
			t.Run(s, func(t *testing.T) {
				p := newPair(t, v)
				p.both(t, `create table device (id int primary key);
					insert into device select generate_series(1, 3);
					create table h (ts timestamptz not null, dev int references device, v int, unique (ts, dev),
					check (v > 0), exclude using btree (ts with =, dev with =))`)
				p.src.Exec(t, "select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')")
				p.dst.Exec(t, "select create_hypertable('h', 'ts', chunk_time_interval => interval '"+s+"')")
				rows := "insert into h select '2024-01-01'::timestamptz + n * interval '5 hours', 1 + n % 3, n " +
					"from generate_series(1, 20) n"
				p.src.Exec(t, rows)
				// dual-written, and since updated on the source
				p.dst.Exec(t, strings.Replace(rows, ", n from", ", n + 100 from", 1)+" where n in (1, 2, 7, 19, 20)")
				p.stage(t, "--until", "2024-02-01")
				ways(t, p.copy(t))
				p.same(t, "select * from h")

				// A row without its device fails its own chunk only, and says so.
				p.src.Exec(t, "insert into device values (4); insert into h "+
					"values ('2024-01-02 00:01', 4, 1), ('2024-03-01', 1, 1)")
				p.stage(t, "--until", "2025-02-01")
				p.dst.Exec(t, "update __backfill.task set worked = null")
				r := p.run(t, p.dump(t, p.chunks(t)), "bf-load", "--target", p.target)
				if r.status != 1 || !strings.Contains(r.stderr, "23503") || strings.Count(r.stderr, "SQLSTATE") != 1 {
					t.Errorf("status %d, stderr %s", r.status, r.stderr)
				}
				p.dst.Exec(t, "insert into device values (4)")
				ways(t, p.copy(t))
				p.same(t, "select * from h")
			})
		}
	})
}

// TestReferenced copies into a hypertable that other tables of the target
// reference: their rows stay as they are.
func TestReferenced(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, `create table h (ts timestamptz not null, dev int not null, v int, w text, primary key (ts, dev),
            unique (dev, ts))`)
		p.both(t, "select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')")
		rows := "insert into h select '2024-01-01'::timestamptz + n * interval '5 hours', 1 + n % 3, n " +
			"from generate_series(1, 20) n"
		p.src.Exec(t, rows)
		p.dst.Exec(t, strings.Replace(rows, ", n from", ", n + 100 from", 1)+" where n < 10")
		if !references(p.dst, t) {
			t.Skip("this version has no foreign keys to hypertables")
		}
		p.stage(t, "--until", "2024-02-01")
		ways(t, p.copy(t))
		p.same(t, "select * from h")
		for _, table := range []string{"plain", "cascade", "setnull"} {
			var n int
			p.dst.Query1(t, &n, "select count(ts) from "+table)
			if n != 4 {
				t.Errorf("%d of 4 rows of table %s still reference the hypertable", n, table)
			}
		}
	})
}

// references makes tables that reference h, if this version can.
func references(db *testdb.DB, t *testing.T) bool {
	for table, action := range map[string]string{"plain": "", "cascade": "on delete cascade on update cascade",
		"setnull": "on delete set null"} {
		// A session of its own and few rows: TimescaleDB 2.17 to 2.19 go wrong
		// from the sixth check on.
		conn := db.Conn(t)
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("create table %s (ts timestamptz, dev int, "+
			"foreign key (ts, dev) references h (ts, dev) %s)", table, action)); err != nil {
			return false
		}
		if _, err := conn.Exec(t.Context(), "insert into "+table+" select ts, dev from h where v < 105"); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// TestReferencedIdentity copies over rows that other tables reference, and that
// have an identity the server does not update.
func TestReferencedIdentity(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, `create table h (ts timestamptz not null, dev int not null, id bigint generated always as identity,
            v int, primary key (ts, dev))`)
		p.both(t, "select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')")
		p.dst.Exec(t, "select set_chunk_time_interval('h', interval '2 days')") // through the hypertable
		p.src.Exec(t, "insert into h (ts, dev, v) "+
			"select '2024-01-01'::timestamptz + n * interval '5 hours', 1 + n % 3, n from generate_series(1, 20) n")
		p.dst.Exec(t, "insert into h (ts, dev, v) select '2024-01-01'::timestamptz + n * interval '5 hours', "+
			"1 + n % 3, -n from generate_series(1, 9) n where n <> 3")
		if _, err := p.dst.Conn(t).Exec(t.Context(),
			"create table r (ts timestamptz, dev int, "+
				"foreign key (ts, dev) references h on delete cascade)"); err != nil {
			t.Skipf("this version has no foreign keys to hypertables: %v", err)
		}
		p.dst.Exec(t, "insert into r select ts, dev from h where v > -3")
		p.stage(t, "--until", "2024-02-01")
		r := p.run(t, p.dump(t, p.chunks(t)), "bf-load", "--target", p.target)
		if r.status == 0 || !strings.Contains(r.stderr, `have another "id", which is generated always as identity`) ||
			!strings.Contains(r.stderr, `alter table "public"."h" alter column "id" set generated by default`) {
			t.Fatalf("status %d: %s", r.status, r.stderr)
		}
		if n := p.dst.Rows(t, "select count(*) from h where v < 0"); n[0][0] == "0" {
			t.Errorf("the target's rows are gone")
		}
		p.dst.Exec(t, "alter table h alter column id set generated by default")
		p.dst.Exec(t, "select setval(pg_get_serial_sequence('h', 'id'), 1000)")
		ways(t, p.copy(t))
		p.same(t, "select * from h")
		if n := p.dst.Rows(t, "select count(*) from r"); n[0][0] != "2" {
			t.Errorf("%s of 2 rows still reference the hypertable", n[0][0])
		}
	})
}

// TestPublished copies into chunks without rows of a table that is published
// and has no key: the server would refuse every DELETE.
func TestPublished(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		if !v.Target.Full {
			t.Skip("the Apache edition makes a chunk for a row alone, which has to be deleted again")
		}
		p := newPair(t, v)
		p.both(t, "create table h (ts timestamptz not null, v int); "+
			"select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')")
		p.src.Exec(t, "insert into h select '2024-01-01'::timestamptz + n * interval '5 hours', n "+
			"from generate_series(1, 20) n")
		p.dst.Exec(t, "create publication everything for all tables")
		p.stage(t, "--until", "2024-02-01")
		ways(t, p.copy(t))
		p.same(t, "select * from h")
	})
}

// TestUserCode copies into tables whose constraints, generated columns, indexes
// and triggers call functions that rely on the database's search_path.
func TestUserCode(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		for _, s := range []string{"1 day", "7 days"} {
			t.Run(s, func(t *testing.T) {
				p := newPair(t, v)
				for _, db := range []*testdb.DB{p.src, p.dst} {
					db.Exec(t, "create schema app; create table app.log (v int)")
					db.Exec(t, "alter database "+db.Name+" set search_path = app, public")
				}
				p.both(t, `set search_path = app, public;
					create function inner_check(int) returns boolean language sql immutable as 'select $1 > 0';
					create function is_good(int) returns boolean language plpgsql immutable as
					'begin return inner_check($1); end';
					create function doubled(int) returns int language plpgsql immutable as
					'begin return case when inner_check($1) then $1 * 2 end; end';
					create function logged() returns trigger language plpgsql as
					'begin insert into log values (coalesce(new.v, -old.v)); return coalesce(new, old); end';
					create table h (ts timestamptz not null, v int check (is_good(v)),
					g int generated always as (doubled(v)) stored);
					create index on h (doubled(v))`)
				p.src.Exec(t, "set search_path = app, public; "+
					"select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')")
				p.dst.Exec(t, "set search_path = app, public; "+
					"select create_hypertable('h', 'ts', chunk_time_interval => interval '"+s+"')")
				rows := "insert into app.h select '2024-01-01'::timestamptz + n * interval '5 hours', n " +
					"from generate_series(1, 20) n"
				p.src.Exec(t, rows)
				p.dst.Exec(t, rows+" where n % 2 = 0")
				p.stage(t, "--until", "2024-02-01")
				ways(t, p.copy(t))
				p.same(t, "select * from app.h")

				p.dst.Exec(t, "create trigger logged after insert or delete on app.h "+
					"for each row execute function app.logged()")
				r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2024-02-01")
				if r.status != 0 || !strings.Contains(r.stderr, "logged") {
					t.Errorf("bf-stage does not name the trigger: %s", r.stderr)
				}
				ways(t, p.load(t, p.dump(t, p.chunks(t, "--all")), "--force"))
				p.same(t, "select * from app.h")
				if got := sorted(t, p.dst, "select count(*) filter (where v > 0), count(*) filter (where v < 0) "+
					"from app.log"); got[0] != "20|20" {
					t.Errorf("the trigger saw %s rows come and go, want 20|20", got)
				}
			})
		}
	})
}

// TestDroppedChunks copies into a target whose retention has dropped the very
// chunks; with a continuous aggregate TimescaleDB up to 2.14 keeps their catalog
// rows.
func TestDroppedChunks(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		simple(t, p, "h")
		p.dst.Exec(t, "insert into h select '2024-01-01'::timestamptz + n * interval '1 hour', -n "+
			"from generate_series(0, 239) n")
		if v.Target.Full {
			p.dst.Exec(t, "create materialized view daily with (timescaledb.continuous) as "+
				"select time_bucket('1 day', ts) as day, sum(v) from h group by 1 with no data")
		}
		p.dst.Exec(t, "select drop_chunks('h', older_than => '2024-01-06'::timestamptz)")
		p.stage(t, "--until", "2025-01-01", "--filter", "^public.h$")
		ways(t, p.copy(t))
		p.same(t, "select * from h")
		p.dst.Exec(t, "insert into h values ('2024-01-02', 1)")
	})
}

// TestRowSecurity copies tables with policies as their owner, who is no
// superuser.
func TestRowSecurity(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.source, p.target = p.src.Role(t, "owner"), p.dst.Role(t, "owner")
		p.both(t, `set role owner; create schema app;
			create table app.h (ts timestamptz not null, v int);
			select create_hypertable('app.h', 'ts', chunk_time_interval => interval '1 day');
			alter table app.h enable row level security;
			create policy half on app.h using (v % 2 = 0)`)
		rows := "insert into app.h select '2024-01-01'::timestamptz + n * interval '5 hours', n " +
			"from generate_series(1, 20) n"
		p.src.Exec(t, rows)
		p.dst.Exec(t, rows+" where n > 15")
		p.stage(t, "--until", "2024-02-01 12:00")
		ways(t, p.copy(t))
		p.same(t, "select * from app.h")
		var owner string
		p.dst.Query1(t, &owner, "select string_agg(distinct tableowner, ',') from pg_tables "+
			"where schemaname in ('__backfill', 'app') or tablename like '\\_hyper%'")
		if owner != "owner" {
			t.Errorf("tables belong to %s", owner)
		}

		// Through the hypertable a policy may be in the way.
		p.dst.Rows(t, "select drop_chunks('app.h', newer_than => '-infinity'::timestamptz)")
		p.dst.Exec(t, "alter table app.h force row level security; "+
			"select set_chunk_time_interval('app.h', interval '2 days'); insert into app.h values ('2024-01-02', 2)")
		r := p.run(t, p.dump(t, p.chunks(t, "--all")), "bf-load", "--target", p.target, "--force")
		if want := "hint: row level security applies to the role: use one with BYPASSRLS"; r.status == 0 ||
			!strings.Contains(r.stderr, want) {
			t.Errorf("status %d, want %q in:\n%s", r.status, want, r.stderr)
		}
	})
}
