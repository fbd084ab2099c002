package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

const (
	relationsOfSource = `
        create table parts (time timestamptz not null, dev int, v int) partition by range (time);
        create table parts_jan partition of parts for values from ('2024-01-01') to ('2024-02-01');
        create table parts_feb partition of parts for values from ('2024-02-01') to ('2024-03-01')
            partition by hash (dev);
        create table parts_feb_0 partition of parts_feb for values with (modulus 2, remainder 0);
        create table parts_feb_1 partition of parts_feb for values with (modulus 2, remainder 1);
        create table parts_rest partition of parts default;
        insert into parts select '2023-12-20'::timestamptz + i * interval '20 minutes', i % 5, i
            from generate_series(0, 5999) i;
        create table parent (time timestamptz not null, v int, note text);
        create table "child, odd" (check (time >= '2024-01-08'),
            more int, note text, v int, time timestamptz not null);
        alter table "child, odd" inherit parent;
        create table child2 (check (time < '2024-01-08')) inherits (parent);
        insert into parent select '2024-01-01'::timestamptz + i * interval '6 hours', i, 'parent'
            from generate_series(0, 55) i;
        insert into child2 select '2024-01-01'::timestamptz + i * interval '1 hour', i, 'child2'
            from generate_series(0, 167) i;
        insert into "child, odd" (time, v, note, more)
            select '2024-01-08'::timestamptz + i * interval '1 hour', i, 'odd', 1
        from generate_series(0, 167) i;
        create table epoch (t bigint not null, v int);
        insert into epoch select i, i from generate_series(-50000, 50000, 10) i;
        create table small (t smallint, v int);
        insert into small select i, i from generate_series(-300, 300) i;
        create table days (t date not null, v int);
        insert into days select '2024-01-01'::date + i, i from generate_series(0, 30) i;
        create table local (t timestamp not null, v int);
        insert into local select '2024-01-01'::timestamp + i * interval '1 hour' - interval '1 microsecond', i
            from generate_series(0, 240) i;
        insert into local values ('0001-01-01', -1), ('2024-01-08', -2)`
	relationsOfTarget = `
        create table parts (time timestamptz not null, dev int, v int);
        select create_hypertable('parts', 'time', chunk_time_interval => interval '7 days');
        create table parent (time timestamptz not null, v int, note text);
        select create_hypertable('parent', 'time', chunk_time_interval => interval '7 days');
        create table epoch (t bigint not null, v int);
            select create_hypertable('epoch', 't', chunk_time_interval => 10000);
        create table small (t smallint not null, v int);
            select create_hypertable('small', 't', chunk_time_interval => 100);
        create table days (t date not null, v int);
            select create_hypertable('days', 't', chunk_time_interval => interval '10 days');
        create table local (t timestamp not null, v int);
            select create_hypertable('local', 't', chunk_time_interval => interval '1 day')`
)

// TestPlainRelations copies what holds its rows in several tables, and what is cut by
// other things than timestamps with time zone.
func TestPlainRelations(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, relationsOfSource)
		p.dst.Exec(t, relationsOfTarget)
		p.relations(t)
	})
}

// TestPlainStandby copies the same from a hot standby, which is PostgreSQL's affair and none of
// TimescaleDB's versions, but not from one that has not seen what is staged.
func TestPlainStandby(t *testing.T) {
	p := newPlain(t, newest(t))
	p.src.Exec(t, relationsOfSource)
	p.dst.Exec(t, relationsOfTarget)
	standby := testdb.Standby(t, p.src)
	p.source = standby.ConnString
	p.relations(t)
	p.ok(t, "", "bf-clean", "--target", p.target)
	standby.Exec(t, "select pg_wal_replay_pause()")
	p.src.Exec(t, "insert into days values ('2024-01-02', 77)")
	staged := p.ok(t, "", "bf-stage", "--source", p.src.ConnString, "--target", p.target, "--until", "2024-01-08",
		"--filter", `^public\.days$`, "--scan", "any")
	r := p.run(t, staged, "bf-dump", "--source", p.source)
	if r.status != 1 || !strings.Contains(r.stderr, "has not replayed the log") {
		t.Errorf("a standby that lags: exit status %d: %s", r.status, r.stderr)
	}
}

// relations copies them and compares them.
func (p *pair) relations(t *testing.T) {
	t.Helper()
	for filter, until := range map[string]string{`^public\.(parts|parent)$`: "2024-02-29 00:00:00+00",
		`^public\.epoch$`: "40000",
		`^public\.small$`: "250", `^public\.(days|local)$`: "2024-01-08"} {
		p.stage(t, "--until", until, "--filter", filter, "--scan", "any")
	}
	if r := p.lane(t); r.status != 0 {
		t.Fatalf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	for _, q := range []string{"parts where time < '2024-02-29 00:00:00+00'", "parent",
		"epoch where t < 40000", "small where t < 250",
		"days where t < '2024-01-08'", "local where t < '2024-01-08'"} {
		p.same(t, "select * from "+q)
		name, _, _ := strings.Cut(q, " ")
		n := len(sorted(t, p.src, "select * from "+q))
		p.ask(t, "select count(*) from "+name, fmt.Sprint(n))
	}
	r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
	if r.status != 0 || strings.Contains(r.stdout, "differs") {
		t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
}

// TestMappedOnce: a table without an index is read hardly more than once by all of its
// tasks together, whatever their number.
func TestMappedOnce(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `
            create table m (time timestamptz not null, v int, pad text)
                with (autovacuum_enabled = off); -- it reads the table, too
            insert into m select '2024-01-01'::timestamptz + i * interval '17 seconds', i, repeat('x', 1000)
                from generate_series(0, 69999) i`)
		p.dst.Exec(t, `create table m (time timestamptz not null, v int, pad text);
            select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')`)
		if n := len(p.stage(t, "--until", "2024-01-14")); n != 13 {
			t.Fatalf("%d tasks", n)
		}
		read := func() (n int64) {
			p.src.Reconnect() // what a session has read may count when it ends only
			p.src.Exec(t, "select pg_sleep(0.3), pg_stat_clear_snapshot()")
			p.src.Query1(t, &n, "select heap_blks_read + heap_blks_hit from pg_statio_user_tables where relname = 'm'")
			return n
		}
		before := read()
		if r := p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | wc -c`); r.status != 0 {
			t.Fatalf("exit status %d\n%s", r.status, r.stderr)
		}
		var pages int64
		p.src.Query1(t, &pages, "select pg_relation_size('m') / 8192")
		if n := read() - before; n == 0 || float64(n) > 1.3*float64(pages) {
			t.Errorf("%d pages read, of a table of %d", n, pages)
		}
	})
}

// TestMapCounts: a map counts each row once, in its slice and in its blocks, however far the
// rows are from the order of time: where the next ones are is expected, never taken for granted.
func TestMapCounts(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `
            create table m (time timestamptz, v int, pad text default repeat('x', 700)) with (autovacuum_enabled = off);
            create function rows_at(first timestamptz, step interval, n int) returns void language sql as
                $$ insert into m select first + i * step, i from generate_series(0, n - 1) i $$;
            select rows_at('2024-01-01', '2 minutes', 3000);        -- in order
            select rows_at('2024-01-04 12:00', '1 second', 40);     -- another day among those of one
            select rows_at('2024-01-05 03:00', '2 minutes', 1000);
            insert into m select null from generate_series(1, 7);
            insert into m select '-infinity' from generate_series(1, 3);
            insert into m select 'infinity' from generate_series(1, 5);
            select rows_at('2024-01-06 12:00', '2 minutes', 500);
            select rows_at('2024-01-09', '-2 minutes', 1000);       -- backwards
            select rows_at('2024-01-01', '17 hours', 12) from generate_series(1, 50); -- in no order
            select rows_at('2024-01-10', '1 minute', 1440);
            select rows_at('2024-03-01', '1 minute', 300);          -- after T
            select rows_at('2024-01-10 23:59:59.999999', '1 microsecond', 2);
            delete from m where time >= '2024-01-10 10:00' and time < '2024-01-10 14:00'; -- blocks without a row`)
		p.dst.Exec(t, `create table m (time timestamptz not null, v int, pad text);
            select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')`)
		r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2024-02-01",
			"--scan", "any", "--skip-null-times")
		if r.status != 0 || !strings.Contains(r.stderr, "m: 10 rows have no time") {
			t.Fatalf("exit status %d\n%s", r.status, r.stderr)
		}
		for _, tk := range byRelation(records(t, r.stdout))["m"] {
			var want, mapped int64
			within := "time >= '" + tk.Range.FromText + "' and time < '" + tk.Range.UntilText + "'"
			p.src.Query1(t, &want, "select count(*) from m where "+within)
			for _, b := range tk.Scan.Relations[0].Blocks {
				var n int64
				p.src.Query1(t, &n, fmt.Sprintf("select count(*) from m "+
					"where ctid >= '(%d,0)' and ctid < '(%d,0)' and %s", b.First, b.Until, within))
				mapped += n
			}
			if tk.Scan.By != task.ByBlocks || tk.Scan.Rows != want || mapped != want {
				t.Errorf("from %s: by %s, %d rows, %d in the blocks, want %d",
					tk.Range.FromText, tk.Scan.By, tk.Scan.Rows, mapped, want)
			}
		}
		p.copy(t)
		p.same(t, "select * from m where time > '-infinity' and time < '2024-02-01'")
	})
}
