package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// simple is a hypertable on both sides, with one row per hour of ten days on
// the source.
func simple(t testing.TB, p *pair, name string) {
	t.Helper()
	p.both(t, fmt.Sprintf("create table %[1]s (ts timestamptz not null, v int); "+
		"select create_hypertable('%[1]s', 'ts', chunk_time_interval => interval '1 day')", name))
	p.src.Exec(t, fmt.Sprintf("insert into %s select '2024-01-01'::timestamptz + n * interval '1 hour', n "+
		"from generate_series(0, 239) n", name))
}

// newest returns the install that cheap tests run on.
func newest(t testing.TB) testdb.Pair {
	v := testdb.Installs(t)[0]
	return testdb.Pair{Source: v, Target: v}
}

// TestGone copies while retention drops chunks, and whole hypertables.
func TestGone(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		simple(t, p, "h")
		simple(t, p, "i")
		p.stage(t, "--until", "2025-01-01")
		p.src.Exec(t, "select drop_chunks('h', older_than => '2024-01-04'::timestamptz); drop table i")
		r := p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
		if r.status != 0 {
			t.Errorf("exit status %d: %s", r.status, r.stderr)
		}
		var gone, loaded int
		for _, res := range results(t, r.stdout) {
			switch res.Status {
			case task.Gone:
				gone++
			case task.Loaded:
				loaded++
			default:
				t.Errorf("%s: %s", res.Chunk, res.Status)
			}
		}
		if gone != 13 || loaded != 7 {
			t.Errorf("%d gone, %d loaded; want 13 and 7", gone, loaded)
		}
		p.same(t, "select * from h")
		if n := len(records(t, p.chunks(t))); n != 0 {
			t.Errorf("%d tasks are pending", n)
		}
		if got := sorted(t, p.dst, "select distinct copy_message from __backfill.task "+
			"where hypertable_name = 'i'"); len(got) != 1 || !strings.Contains(got[0], "dropped") {
			t.Errorf("copy_message %q", got)
		}
		// The query of the original's manual runs as it is.
		got := p.dst.Rows(t, "select hypertable_schema, hypertable_name, count(*) as total_chunks, "+
			"count(worked) as finished_chunks, count(worked is null) pending_chunks from __backfill.task group by 1, 2")
		if len(got) != 2 || got[0][2] != "10" || got[0][3] != "10" {
			t.Errorf("progress: %q", got)
		}
	})
}

// TestWrongSource points bf-dump at a database that the tasks are not of.
func TestWrongSource(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.stage(t, "--until", "2025-01-01")
	other := testdb.New(t, p.src.Install, "source")
	for _, uri := range []string{other.ConnString, p.target} {
		dump := p.run(t, p.chunks(t), "bf-dump", "--source", uri)
		if dump.status != 1 || strings.Count(dump.stderr, "another database") != 10 {
			t.Errorf("bf-dump: exit status %d: %s", dump.status, dump.stderr)
		}
		load := p.run(t, dump.stdout, "bf-load", "--target", p.target)
		if load.status != 1 || strings.Count(load.stderr, "another database") != 10 {
			t.Errorf("bf-load: exit status %d: %s", load.status, load.stderr)
		}
	}
	if n := len(records(t, p.chunks(t, "--failed"))); n != 10 {
		t.Errorf("%d tasks have failed, want 10", n)
	}
	p.copy(t)
	p.same(t, "select * from h")
}

// TestAnotherSource stages a second database into a target that still knows the
// chunks of a first one, which have the same names.
func TestAnotherSource(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.stage(t, "--until", "2025-01-01")
	p.copy(t)
	next := &pair{testdb.New(t, p.src.Install, "source"), p.dst, "", p.target}
	next.source = next.src.ConnString
	next.src.Exec(t, "create table h (ts timestamptz not null, v int); "+
		"select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day'); insert into h "+
		"values ('2024-01-01 01:00', -1), ('2024-01-03', -3)")
	state := func() []string { return sorted(t, p.dst, "select * from __backfill.task") }
	before := state()
	for _, line := range []string{
		`bf-stage --source "$SOURCE" --target "$TARGET" --until 2025-01-01`,
		`bf-stage --source "$SOURCE" --until 2025-01-01 | bf-stage --target "$TARGET"`,
		`bf-stage --source "$SOURCE" --target "$TARGET" --until 2023-01-01`, // no chunk of it
	} {
		r := next.sh(t, line)
		if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "another source database") ||
			!strings.Contains(r.stderr, "hint: check --source; when that migration is over") {
			t.Errorf("%s: exit status %d, %s%s", line, r.status, r.stdout, r.stderr)
		}
	}
	r := next.sh(t, `(bf-stage --source "$SOURCE" --until 2025-01-01; bf-stage --source `+"'"+p.source+"'"+
		` --until 2025-01-01) | bf-stage --target "$TARGET"`)
	if r.status != 1 || !strings.Contains(r.stderr, "different source databases") {
		t.Errorf("two plans: exit status %d, %s%s", r.status, r.stdout, r.stderr)
	}
	diff(t, "tasks", before, state())
	p.ok(t, "", "bf-clean", "--target", p.target)
	if n := len(next.stage(t, "--until", "2025-01-01")); n != 2 {
		t.Errorf("%d tasks staged, want 2", n)
	}
	next.copy(t)
	next.same(t, "select * from h where ts < '2024-01-02' or ts >= '2024-01-03' and ts < '2024-01-04'")
}

// TestGap stages two ranges of one chunk that leave a gap, which the target's
// rows in between would fall into.
func TestGap(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.stage(t, "--until", "2024-01-01 04:00")
	p.dst.Exec(t, "insert into h values ('2024-01-01 06:00', 1000)")
	for range 2 { // pending, then done
		before := sorted(t, p.dst, "select * from __backfill.task")
		r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--from", "2024-01-01 12:00",
			"--until", "2024-01-01 13:00")
		if r.status != 1 || r.stdout != "" ||
			!strings.Contains(r.stderr, "is staged with [2024-01-01 00:00:00+00, 2024-01-01 04:00:00+00): "+
				"[2024-01-01 12:00:00+00, 2024-01-01 13:00:00+00) would leave a gap") ||
			!strings.Contains(r.stderr, "hint: stage a range that adjoins") {
			t.Errorf("exit status %d, %s%s", r.status, r.stdout, r.stderr)
		}
		diff(t, "tasks", before, sorted(t, p.dst, "select * from __backfill.task"))
		p.copy(t)
	}
	diff(t, "rows from 04:00 on", []string{"1000"}, sorted(t, p.dst, "select v from h where ts >= '2024-01-01 04:00'"))
	if n := len(p.stage(t, "--from", "2024-01-01 04:00", "--until", "2024-01-01 13:00")); n != 1 {
		t.Errorf("%d tasks staged with what adjoins, want 1", n)
	}
	p.copy(t)
	diff(t, "all until 13:00", sorted(t, p.src, "select * from h where ts < '2024-01-01 13:00'"),
		sorted(t, p.dst, "select * from h"))
}

// TestZones gives bounds of which a cast would silently drop a part.
func TestZones(t *testing.T) {
	p := newPair(t, newest(t))
	for _, typ := range []string{"timestamptz", "timestamp", "date"} {
		p.both(t, fmt.Sprintf("create table h_%[1]s (ts %[1]s not null); "+
			"select create_hypertable('h_%[1]s', 'ts', chunk_time_interval => interval '1 day')", typ))
		p.src.Exec(t, fmt.Sprintf("insert into h_%s values ('2024-01-01'), ('2024-01-02'), ('2024-01-03')", typ))
	}
	for _, c := range []struct{ filter, bound, until string }{
		{"timestamp$", "2024-01-02T12:00:00", "2024-01-02 12:00:00"},
		{"timestamp$", "2024-01-02T12:00:00Z", "2024-01-02 12:00:00"},
		{"timestamp$", "2024-01-02 12:00:00+00:00", "2024-01-02 12:00:00"},
		{"timestamp$", "infinity", "2024-01-04 00:00:00"},
		{"timestamp$", "2024-01-02T12:00:00-05", ""},
		{"timestamp$", "2024-01-02 12:00 Europe/Paris", ""},
		{"timestamptz", "2024-01-02T12:00:00-05", "2024-01-02 17:00:00+00"},
		{"date", "2024-01-03", "2024-01-03"},
		{"date", "2024-01-03T00:00:00Z", "2024-01-03"},
		{"date", "infinity", "2024-01-04"},
		{"date", "2024-01-03T00:00:00-05", ""},
		{"date", "2024-01-03T12:00:00Z", ""},
		{".", "2024-01-03T00:00:00Z", "2024-01-03"},
		{".", "2024-01-03T00:00:00+02", ""},
	} {
		r := p.run(t, "", "bf-stage", "--source", p.source, "--filter", c.filter, "--until", c.bound)
		if refused := r.status == 2 && r.stdout == "" &&
			strings.Contains(r.stderr, "--until: "); refused != (c.until == "") || !refused && r.status != 0 {
			t.Errorf("%s of %s: exit status %d: %s", c.bound, c.filter, r.status, r.stderr)
		}
		if c.until != "" && !strings.Contains(r.stdout, `"until_text":"`+c.until) {
			t.Errorf("%s of %s: %s", c.bound, c.filter, r.stdout)
		}
	}
	r := p.run(t, "", "bf-stage", "--source", p.source, "--filter", "timestamp$", "--from", "2024-01-01 12:00+02",
		"--until", "2024-01-03")
	if r.status != 2 || !strings.Contains(r.stderr,
		`--from: "2024-01-01 12:00+02" has a time zone, `+
			`and dimension "ts" of public.h_timestamp is a timestamp without time zone`) {
		t.Errorf("--from: exit status %d: %s", r.status, r.stderr)
	}
}

// TestAgain stages again: later, with other bounds, after the copy.
func TestAgain(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	count := func(want int, what string, got []*task.Task) {
		t.Helper()
		if len(got) != want {
			t.Errorf("%s: %d tasks staged, want %d", what, len(got), want)
		}
	}
	count(3, "at first", p.stage(t, "--until", "2024-01-05 12:00", "--from", "2024-01-03 06:00"))
	first := p.chunks(t)
	count(0, "the same again", p.stage(t, "--until", "2024-01-05 12:00", "--from", "2024-01-03 06:00"))
	count(0, "less", p.stage(t, "--until", "2024-01-05", "--from", "2024-01-04"))
	if got := p.chunks(t); got != first {
		t.Errorf("tasks changed:\n%s\n%s", first, got)
	}
	p.copy(t)
	count(0, "the same after the copy", p.stage(t, "--until", "2024-01-05 12:00", "--from", "2024-01-03 06:00"))
	count(2, "a later end", p.stage(t, "--until", "2024-01-06 12:00", "--from", "2024-01-04"))
	if got := records(t, p.chunks(t)); len(got) != 2 || got[0].Range.Partial && got[1].Range.Partial ||
		!got[0].Range.Partial && !got[1].Range.Partial {
		t.Errorf("pending: %v", got)
	}
	p.copy(t)
	p.same(t, "select * from h where ts >= '2024-01-03 06:00' and ts < '2024-01-06 12:00'")
	var n int
	p.dst.Query1(t, &n, "select count(*) from h")
	if n != 78 {
		t.Errorf("%d rows on the target, want 78", n)
	}
	count(8, "everything", p.stage(t, "--until", "2025-01-01"))
	p.copy(t)
	p.same(t, "select * from h")
	// New chunks of the source come in.
	p.src.Exec(t, "insert into h values ('2024-02-01', 1)")
	count(1, "what is new", p.stage(t, "--until", "2025-01-01"))
}

// TestListings asks bf-chunks for what it can list.
func TestListings(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	simple(t, p, "other")
	p.src.Exec(t, "insert into h select '2024-01-03', n from generate_series(1, 10000) n; analyze h")
	staged := p.stage(t, "--until", "2025-01-01")
	numbers := func(args ...string) (ns []int64) {
		for _, r := range records(t, p.chunks(t, args...)) {
			ns = append(ns, r.Task)
		}
		return ns
	}
	all := numbers()
	if len(all) != 20 || len(staged) != 20 || !slices.IsSorted(all) ||
		staged[0].Range.UntilText != "2024-01-11 00:00:00+00" {
		t.Errorf("newest first: %v, %v", all, staged[0])
	}
	old := numbers("--order", "oldest")
	slices.Reverse(old)
	if !slices.Equal(all, old) {
		t.Errorf("oldest first: %v", old)
	}
	if r := records(t, p.chunks(t, "--order", "largest")); r[0].Range.FromText != "2024-01-03 00:00:00+00" ||
		r[0].Hypertable.Name != "h" {
		t.Errorf("largest first: %v", r[0])
	}
	if got := records(t, p.chunks(t, "--filter", `^PUBLIC\.oth`)); len(got) != 10 || got[0].Hypertable.Name != "other" {
		t.Errorf("--filter: %d", len(got))
	}
	if got := numbers("--task", "3", "--task", "7", "--task", "3"); !slices.Equal(got, []int64{3, 7}) {
		t.Errorf("--task: %v", got)
	}
	if r := p.run(t, "", "bf-chunks", "--target", p.target, "--task", "3", "--task", "999"); r.status != 1 ||
		len(records(t, r.stdout)) != 1 || !strings.Contains(r.stderr, "task 999: is not staged") {
		t.Errorf("--task of none: exit status %d, %s%s", r.status, r.stdout, r.stderr)
	}
	if r := p.run(t, "", "bf-chunks", "--target", p.target, "--filter", "nothing"); r.status != 0 || r.stdout != "" ||
		!strings.Contains(r.stderr, `no task matches --filter "nothing"`) {
		t.Errorf("--filter of none: exit status %d, %s%s", r.status, r.stdout, r.stderr)
	}
	if r := p.run(t, "", "bf-chunks", "--target", p.target, "--filter", "other", "--done"); r.status != 0 ||
		r.stdout != "" || r.stderr != "" {
		t.Errorf("--filter of what is not done: exit status %d, %s%s", r.status, r.stdout, r.stderr)
	}
	if got := p.chunks(t, "-0", "--task", "3"); !strings.HasSuffix(got, "}\x00") || strings.Contains(got, "\n") {
		t.Errorf("-0: %q", got)
	}
	p.load(t, p.dump(t, p.chunks(t, "--task", "3")))
	if got := numbers("--done"); !slices.Equal(got, []int64{3}) {
		t.Errorf("--done: %v", got)
	}
	if got := numbers("--pending"); len(got) != 19 || slices.Contains(got, 3) {
		t.Errorf("--pending: %v", got)
	}
	if got := numbers("--all"); len(got) != 20 {
		t.Errorf("--all: %v", got)
	}
	if got := numbers("--failed"); len(got) != 0 {
		t.Errorf("--failed: %v", got)
	}
	if r := p.sh(t, `bf-chunks --target "$TARGET" | head -n 1`); r.status != 0 || r.stderr != "" {
		t.Errorf("head: %d %s", r.status, r.stderr)
	}
}

// TestHalves stages in two halves, through a pipe and through a file.
func TestHalves(t *testing.T) {
	testdb.EachMove(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		simple(t, p, "h")
		r := p.sh(t, `bf-stage --source "$SOURCE" --until '2024-01-03 12:00' | bf-stage --target "$TARGET"`)
		if r.status != 0 || len(records(t, r.stdout)) != 3 {
			t.Fatalf("exit status %d, %s%s", r.status, r.stdout, r.stderr)
		}
		// What the two commands say is what one says.
		whole := p.stage(t, "--until", "2024-01-04")
		if len(whole) != 1 || whole[0].Origin == "" {
			t.Errorf("staged in one: %v", whole)
		}
		r = p.sh(t, `cd "$(mktemp -d)" && bf-stage --source "$SOURCE" --until 2024-01-06 >plan && bf-stage --target `+
			`"$TARGET" <plan && bf-stage --target "$TARGET" <plan; rm plan`)
		if r.status != 0 || len(records(t, r.stdout)) != 2 {
			t.Errorf("through a file: exit status %d, %s%s", r.status, r.stdout, r.stderr)
		}
		p.copy(t)
		p.same(t, "select * from h where ts < '2024-01-06'")
		// A target that does not fit refuses the plan.
		p.dst.Exec(t, "alter table h drop column v")
		r = p.sh(t, `bf-stage --source "$SOURCE" --until 2024-01-07 | bf-stage --target "$TARGET"`)
		if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, `column "v"`) {
			t.Errorf("misfit: exit status %d, %s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// TestBeside stages where the target has rows that no chunk of the source
// covers: they stay, and bf-stage says so.
func TestBeside(t *testing.T) {
	p := newPair(t, newest(t))
	p.both(t, "create table h (ts timestamptz not null, v int); "+
		"select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day')")
	p.src.Exec(t, "insert into h values ('2024-01-01', 1), ('2024-01-05', 1)")
	p.dst.Exec(t, "insert into h values ('2024-01-01 01:00', -1), ('2024-01-03', -1), ('2024-01-04', -1), "+
		"('2024-01-05 01:00', -1)")
	p.dst.Exec(t, "delete from h where ts = '2024-01-04'")
	r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2024-02-01")
	if want := "public.h: where the source has no chunk, the target has rows in 1; they stay"; r.status != 0 ||
		!strings.Contains(r.stderr, want) {
		t.Errorf("status %d, want %q in:\n%s", r.status, want, r.stderr)
	}
	p.copy(t)
	if got := p.dst.Rows(t, "select string_agg(v::text, ',' order by ts) from h"); got[0][0] != "1,-1,1" {
		t.Errorf("the target has %v", got)
	}
}
