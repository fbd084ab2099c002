package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/task"
	"bf/lib/testdb"
)

// slicesAreChunks: each slice that was copied is a chunk of the target by its extent.
func (p *pair) slicesAreChunks(t *testing.T) {
	t.Helper()
	p.ask(t, `select count(*) from __backfill.task t where t.kind = 'slice' and not exists (
        select from _timescaledb_catalog.dimension_slice s
        join _timescaledb_catalog.dimension d on d.id = s.dimension_id
        join _timescaledb_catalog.hypertable h on h.id = d.hypertable_id
        where h.table_name = t.hypertable_name and s.range_start::text = t.dimensions->0->>'from'
          and s.range_end::text = t.dimensions->0->>'until')`, "0")
}

// TestPlainGrid: slices are as the target cuts time: by the chunks that it has, by the
// interval that it has since, by the ends of what both can hold; T is inside of one.
func TestPlainGrid(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `create table m (time timestamptz not null, v int);
            insert into m select '2023-11-20'::timestamptz + i * interval '1 hour', i from generate_series(0, 2999) i;
            insert into m values ('9999-12-31 23:59:59.999999+00', -1), ('0001-01-01 00:00+00', -2);
            create table blocks as select * from m where v >= 0`)
		p.src.Exec(t, "create index on m (time)")
		for _, name := range []string{"m", "blocks"} {
			p.dst.Exec(t, fmt.Sprintf(`create table %[1]s (time timestamptz not null, v int);
                select create_hypertable('%[1]s', 'time', chunk_time_interval => interval '1 day');
                insert into %[1]s select '2024-01-03'::timestamptz + i * interval '1 day', -i
                    from generate_series(1, 5) i;
                select set_chunk_time_interval('%[1]s', interval '30 days');
                insert into %[1]s values ('2024-02-20', -9)`, name))
		}
		p.stage(t, "--until", "2024-03-10 12:00:00+00")
		p.copy(t)
		p.slicesAreChunks(t)
		for _, name := range []string{"m", "blocks"} {
			p.same(t, "select * from "+name+" where time < '2024-03-10 12:00:00+00'")
			p.ask(t, "select count(*) filter (where through) from (select copy_message ~ 'through' as through "+
				"from __backfill.task where hypertable_name = '"+name+"') x", "0")
			p.ask(t, `select count(*) filter (where n = 1), count(*) filter (where n between 2 and 30) from (
                select ((dimensions->0->>'until')::bigint - (dimensions->0->>'from')::bigint) / 86400000000 as n
                from __backfill.task where hypertable_name = '`+name+"' and (filter->>'from')::bigint > 0) x", "5|5")
		}
		p.stage(t, "--until", "10000-01-01 00:00:00+00")
		p.copy(t)
		p.slicesAreChunks(t)
		p.same(t, "select * from m")
		p.same(t, "select * from blocks")
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 0 || strings.Contains(r.stdout, "differs") {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// TestPlainAttached: where a table that was filled and indexed first can become the
// chunk, that is the way of slices, too.
func TestPlainAttached(t *testing.T) {
	any := false
	testdb.EachFull(t, func(t *testing.T, in testdb.Pair) {
		if !attaches(in.Target) {
			t.Skip("attached chunks of this version are defective")
		}
		any = true
		p := newPlain(t, in)
		for _, name := range []string{"ranged", "mapped"} {
			p.src.Exec(t, `create table `+name+` (time timestamptz not null, dev int, w text);
                insert into `+name+` select timestamptz '2024-01-01' + i * interval '6 s', i % 5, repeat('text ', 30)
                from generate_series(0, 71999) i; analyze `+name)
			p.dst.Exec(t, `create table `+name+` (w text, time timestamptz not null, dev int, primary key (time, dev));
                select create_hypertable('`+name+`', 'time', chunk_time_interval => interval '1 day')`)
		}
		p.src.Exec(t, "create index on ranged (time)")
		// Most of whose bytes are beside the heap.
		p.src.Exec(t, `create table toasted (time timestamptz not null, dev int, w text);
            alter table toasted alter w set storage external;
            insert into toasted select timestamptz '2024-01-01' + i * interval '10 min', i % 5,
                repeat(md5(i::text), 300)
            from generate_series(0, 719) i; analyze toasted`)
		p.dst.Exec(t, `create table toasted (w text, time timestamptz not null, dev int, primary key (time, dev));
            select create_hypertable('toasted', 'time', chunk_time_interval => interval '1 day')`)
		for name, staged := range byRelation(p.stage(t, "--until", "2024-02-01")) {
			by := map[string]string{"ranged": task.ByRange, "mapped": task.ByBlocks, "toasted": task.ByBlocks}[name]
			if staged[0].Scan.By != by {
				t.Errorf("%s is read by %s, want %s", name, staged[0].Scan.By, by)
			}
		}
		for _, way := range ways(t, p.copy(t)) {
			if way != attached {
				t.Errorf("way %q, want %q", way, attached)
			}
		}
		for _, name := range []string{"ranged", "mapped", "toasted"} {
			p.same(t, "select time, dev, w from "+name)
		}
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) != 15 {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
	if !any {
		t.Skip("needs a TimescaleDB whose attached chunks are as good as its own")
	}
}

// TestPlainRewritten: what rewrites a relation shows through a snapshot as well: the
// blocks that were mapped in it are gone, and the task fails.
func TestPlainRewritten(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		if in.Source.Major < 14 {
			t.Skip("PostgreSQL before 14 is not read by blocks")
		}
		p := newPlain(t, in)
		for _, name := range []string{"full", "emptied"} {
			name = `"` + name + `"`
			p.src.Exec(t, `create table `+name+` (time timestamptz not null, v int, pad text default repeat('x', 500));
                insert into `+name+` select '2024-01-01'::timestamptz + i * interval '1 minute', i
                from generate_series(0, 28799) i`)
			p.dst.Exec(t, `create table `+name+` (time timestamptz not null, v int, pad text);
                select create_hypertable('`+name+`', 'time', chunk_time_interval => interval '1 day');
                insert into `+name+` values ('2024-01-02 12:00', -1, 'dual')`)
		}
		conn := p.src.Conn(t)
		var id string
		if _, err := conn.Exec(t.Context(), "begin isolation level repeatable read"); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "select pg_export_snapshot()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		for _, tk := range p.stage(t, "--until", "2024-01-21", "--snapshot", id) {
			if tk.Scan.By != task.ByBlocks {
				t.Fatalf("%s is read by %s", tk.Hypertable, tk.Scan.By)
			}
		}
		p.src.Exec(t, `vacuum full "full"`)
		p.src.Exec(t, "truncate emptied")
		r := p.lane(t)
		if r.status != 1 || strings.Contains(r.stdout, `"status":"loaded"`) {
			t.Errorf("exit status %d\n%s", r.status, r.stdout)
		}
		p.ask(t, "select count(*) filter (where worked is null), "+
			"count(*) filter (where copy_message like '%was rewritten since its blocks were mapped%') "+
			"from __backfill.task", "40|40")
		p.ask(t, `select (select count(*) from "full"), (select count(*) from emptied)`, "1|1")
		if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPlainKilledMap: bf-stage that is killed while it maps leaves nothing, on either
// side, and the next one stages what it would have.
func TestPlainKilledMap(t *testing.T) {
	p := newPlain(t, newest(t))
	p.src.Exec(t, `create table m (time timestamptz not null, v int, pad text default repeat('x', 700));
        insert into m select '2024-01-01'::timestamptz + i * interval '20 seconds', i from generate_series(0, 86399) i`)
	p.dst.Exec(t, `create table m (time timestamptz not null, v int, pad text);
        select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')`)
	told := func(tasks []*task.Task) (lines []string) {
		for _, tk := range tasks {
			lines = append(lines, fmt.Sprint(tk.Slices, tk.Range, tk.Rows, tk.Bytes, tk.Scan.By, tk.Scan.Rows,
				tk.Scan.Relations))
		}
		return lines
	}
	want := told(p.stage(t, "--until", "2024-01-15 12:00:00+00"))
	p.ok(t, "", "bf-clean", "--target", p.target, "--force")
	cmd := p.command(t, "bf-stage", "--source", p.source, "--target", p.target, "--until", "2024-01-15 12:00:00+00")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	session := func(which string) (n int) {
		p.src.Query1(t, &n, "select count(*)::int from pg_stat_activity where application_name = 'bf-stage' "+
			"and datname = current_database()"+which)
		return n
	}
	for deadline := time.Now().Add(patience); session(" and query like '%width_bucket%'") == 0; {
		if time.Now().After(deadline) {
			t.Fatal("it maps nothing")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it ended before it was killed")
	}
	for deadline := time.Now().Add(patience); session("") > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	p.ask(t, "select to_regclass('__backfill.task') is null", "t")
	diff(t, "tasks", want, told(p.stage(t, "--until", "2024-01-15 12:00:00+00")))
	p.copy(t)
	p.same(t, "select * from m where time < '2024-01-15 12:00:00+00'")
}
