package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// reshape is a change of a hypertable's chunks after they were staged. In its
// SQL {h} is the hypertable, {1} to {4} are its chunks, oldest first, and {s}
// the schema of the chunks.
type reshape struct {
	name  string
	needs string // a procedure of the full edition
	sql   string
	both  string // on both sides
	now   string // the hypertable's name after it
	tasks int    // afterwards
	anew  int    // tasks that are staged again
	gone  int    // tasks whose rows the hypertable has no more
}

var reshapes = []reshape{
	{name: "chunk", sql: "alter table {2} rename to {h}_archive", tasks: 4, anew: 1},
	{name: "schema", sql: "alter schema {s} rename to {s}_2", tasks: 4, anew: 4},
	{name: "hypertable", both: "alter table {h} rename to {h}_2", now: "{h}_2", tasks: 4, anew: 4},
	{name: "everything", both: "alter table {h} rename to {h}_2; alter schema {s} rename to {s}_2", now: "{h}_2",
		tasks: 4, anew: 4},
	{name: "column", both: "alter table {h} rename ts to at", tasks: 4, anew: 4},
	{name: "merged", needs: "merge_chunks", sql: "call merge_chunks(array['{1}', '{2}', '{3}']::regclass[])",
		tasks: 2, anew: 1},
	{name: "split", needs: "split_chunk", sql: "call split_chunk('{2}', '2024-01-02 06:00'::timestamptz)",
		tasks: 5, anew: 2},
	{name: "dropped", sql: "select drop_chunks('{h}', older_than => '2024-01-03'::timestamptz)", tasks: 4, gone: 2},
	{name: "detached", needs: "detach_chunk", sql: "call detach_chunk('{1}')", tasks: 4, gone: 1},
}

// TestReshaped changes the chunks of the source between staging and copying,
// and after the copy. Only what was dropped is taken for dropped, and staging
// again mends the rest.
func TestReshaped(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		const T, where = "2024-01-04 12:00", " < '2024-01-04 12:00'"
		type table struct {
			reshape
			hypertable string
			done       bool // copied before the change
		}
		var tables []table
		for _, r := range reshapes {
			if r.needs != "" && (!v.Source.Full ||
				len(p.src.Rows(t, "select 1 from pg_proc where proname = '"+r.needs+"'")) == 0) {
				continue
			}
			for _, done := range []bool{true, false} {
				h := fmt.Sprintf("%s_%t", r.name, done)
				p.both(t, fmt.Sprintf("create schema s_%[1]s; create table %[1]s (ts timestamptz not null, v int); "+
					"select create_hypertable('%[1]s', 'ts', chunk_time_interval => interval '1 day', "+
					"associated_schema_name => 's_%[1]s')", h))
				p.src.Exec(t, fmt.Sprintf("insert into %s "+
					"select '2024-01-01'::timestamptz + n * interval '3 hours', n from generate_series(0, 31) n", h))
				tables = append(tables, table{r, h, done})
			}
		}
		p.stage(t, "--until", T)
		p.load(t, p.dump(t, p.chunks(t, "--filter", "_true$")))
		for i, r := range tables {
			subst := []string{"{h}", r.hypertable, "{s}", "s_" + r.hypertable}
			for n, c := range p.src.Rows(t, "select c from show_chunks('"+r.hypertable+
				"') c order by substring(c::text from '_(\\d+)_chunk')::int") {
				subst = append(subst, fmt.Sprintf("{%d}", n+1), c[0])
			}
			sql := strings.NewReplacer(subst...).Replace
			if r.sql != "" {
				p.src.Exec(t, sql(r.sql))
			}
			if r.both != "" {
				p.both(t, sql(r.both))
			}
			if tables[i].now = sql(r.now); r.now == "" {
				tables[i].now = r.hypertable
			}
		}

		count := func(of []*task.Result, status task.Status, h string) (n int) {
			for _, r := range of {
				if r.Hypertable.Name == h && r.Status == status {
					n++
				}
			}
			return n
		}
		copied := p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
		verified := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target)
		if copied.status != 1 || verified.status != 1 {
			t.Errorf("copy and verification: exit status %d and %d", copied.status, verified.status)
		}
		for _, r := range tables {
			of := results(t, verified.stdout)
			if !r.done {
				of = results(t, copied.stdout)
			}
			if gone, failed := count(of, task.Gone, r.hypertable),
				count(of, task.Failed, r.hypertable); gone != r.gone || (failed > 0) != (r.anew > 0) {
				t.Errorf("%s: %d gone, %d failed; want %d gone\n%s%s", r.hypertable, gone, failed, r.gone,
					copied.stderr, verified.stderr)
			}
		}

		again := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", T)
		if again.status != 0 || !strings.Contains(again.stderr,
			"bf-stage: retired, as other chunks have taken over their rows") {
			t.Errorf("staged again: exit status %d: %s", again.status, again.stderr)
		}
		staged := records(t, again.stdout)
		p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
		last := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target, "--all")
		for _, r := range tables {
			anew := 0
			for _, s := range staged {
				if s.Hypertable.Name == r.now {
					anew++
				}
			}
			tasks := records(t, p.chunks(t, "--all", "--filter", `^public\.`+r.hypertable))
			if anew != r.anew || len(tasks) != r.tasks {
				t.Errorf("%s: %d tasks staged again, %d in all; want %d and %d", r.hypertable, anew, len(tasks),
					r.anew, r.tasks)
			}
			column := map[bool]string{true: "at", false: "ts"}[r.name == "column"]
			if r.gone == 0 {
				p.same(t, "select * from "+r.now+" where "+column+where)
			}
			if n := count(results(t, last.stdout), task.Verified, r.now); n != 4 && r.gone+n != r.tasks {
				t.Errorf("%s: %d tasks verified: %s", r.hypertable, n, last.stderr)
			}
		}
	})
}

// outcome counts results by status.
func outcome(rs []*task.Result) string {
	count := map[task.Status]int{}
	for _, r := range rs {
		count[r.Status]++
	}
	return strings.TrimPrefix(fmt.Sprint(count), "map")
}

// TestReshapedAggregate renames what a continuous aggregate is known by, and a
// chunk behind it; another is dropped.
func TestReshapedAggregate(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		simple(t, p, "h")
		// other numbers
		p.dst.Exec(t, "create table other (ts timestamptz not null); select create_hypertable('other', 'ts')")
		p.both(t, "create materialized view daily with (timescaledb.continuous, timescaledb.materialized_only) as "+
			"select time_bucket('1 day', ts) as day, sum(v) from h group by 1 with no data")
		p.src.Exec(t, "insert into h values ('2024-06-01', 1), ('2025-01-01', 1)")
		p.src.Exec(t, "call refresh_continuous_aggregate('daily', null, '2025-01-02')")
		p.stage(t, "--until", "2025-06-01", "--filter", "daily")
		p.src.Exec(t, "select drop_chunks('daily', older_than => '2024-05-01'::timestamptz)")
		p.src.Exec(t, "do $$declare c text; begin "+
			"select show_chunks('daily', older_than => '2024-12-01'::timestamptz) into c; "+
			"execute format('alter table %s rename to archive', c); end$$")
		r := p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
		if s := outcome(results(t, r.stdout)); r.status != 1 || s != "[failed:1 gone:2 loaded:1]" ||
			!strings.Contains(r.stderr, "archive") {
			t.Errorf("copy: exit status %d, %s: %s", r.status, s, r.stderr)
		}
		p.both(t, "alter materialized view daily rename to per_day")
		if n := len(p.stage(t, "--until", "2025-06-01", "--filter", "per_day")); n != 2 {
			t.Errorf("%d tasks staged again, want 2", n)
		}
		p.copy(t)
		p.same(t, "select * from per_day")
		if s := sorted(t, p.dst, "select view_name, copy_message like 'gone%', count(*) from __backfill.task "+
			"group by 1, 2"); fmt.Sprint(s) != "[daily|t|2 per_day|f|2]" {
			t.Errorf("tasks: %s", s)
		}
	})
}

// TestReshapedInSnapshot: what is not to be seen in a snapshot, or under another
// hash only, is told apart from what was dropped.
func TestReshapedInSnapshot(t *testing.T) {
	p := newPair(t, newest(t))
	p.both(t, "create table h (ts timestamptz not null, dev int not null); "+
		"select create_hypertable('h', 'ts', 'dev', 2, chunk_time_interval => interval '1 day')")
	p.src.Exec(t, "insert into h select '2024-01-01'::timestamptz + d * interval '1 day', n "+
		"from generate_series(0, 2) d, generate_series(1, 20) n")
	held := p.src.Conn(t)
	var id string
	if _, err := held.Exec(t.Context(), "begin isolation level repeatable read"); err != nil {
		t.Fatal(err)
	}
	if err := held.QueryRow(t.Context(), "select pg_export_snapshot()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	p.src.Exec(t, "insert into h values ('2024-02-01', 1)") // after the snapshot
	p.stage(t, "--until", "2025-01-01", "--snapshot", id)
	var chunks []string
	for _, r := range p.src.Rows(t, "select c from show_chunks('h') c "+
		"order by substring(c::text from '_(\\d+)_chunk')::int") {
		chunks = append(chunks, r[0])
	}
	p.src.Exec(t, "drop table "+chunks[0]+"; alter table "+chunks[2]+" rename to archive")
	r := p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
	if s := outcome(results(t, r.stdout)); s != "[failed:2 gone:1 loaded:4]" ||
		!strings.Contains(r.stderr, "made after it was taken") ||
		!strings.Contains(r.stderr, "is in _timescaledb_internal.archive") {
		t.Errorf("exit status %d, %s: %s", r.status, s, r.stderr)
	}
	p.stage(t, "--until", "2025-01-01")
	p.copy(t)
	p.same(t, "select * from h")
	if n := len(records(t, p.chunks(t))); n != 0 {
		t.Errorf("%d tasks are pending", n)
	}
}
