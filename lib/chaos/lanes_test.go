package chaos

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/testdb"
)

// crowded is a source and a target with a hypertable for each combination of what
// decides about the way of a chunk and about the locks that it takes.
type crowded struct {
	source, target *testdb.DB
	to             string // connection string of the tools
	tables         []string
}

// roles of the tools on the target.
var roles = []string{"superuser", "owner", "owner who may create"}

// situation is what one of the hypertables is like on both sides.
type situation struct {
	aggregate bool   // the target has one on it
	settings  string // of the target, and how they came
	held      string // by the target's chunks
	sends     string // the source
}

// situations are all there are where one hypertable may (perChunk) have chunks of
// different settings.
func situations(perChunk bool) (all []situation) {
	for _, aggregate := range []bool{false, true} {
		for _, settings := range []string{"same", "changed", "other"} {
			for _, held := range []string{"nothing", "rows", "batches"} {
				for _, sends := range []string{"batches", "batches and rows", "rows", "plain rows",
					"rows for a trigger"} {
					if settings == "same" || perChunk && strings.HasPrefix(sends, "batches") {
						all = append(all, situation{aggregate, settings, held, sends})
					}
				}
			}
		}
	}
	return all
}

// make returns the statements that make the hypertable.
func (s situation) make(name string) (source, target string) {
	const (
		create = "create table {t} (ts timestamptz not null, dev int not null, v float8); " +
			"select create_hypertable('{t}', 'ts', chunk_time_interval => interval '1 day');"
		enable = "alter table {t} set (timescaledb.compress, timescaledb.compress_segmentby = 'dev', " +
			"timescaledb.compress_orderby = 'ts');"
		plain = "alter table {t} set (timescaledb.compress, timescaledb.compress_segmentby = '', " +
			"timescaledb.compress_orderby = 'ts');"
		rows = "insert into {t} select t, d, {v} " +
			"from generate_series('2024-01-01'::timestamptz, '2024-01-03 23:00', '1 hour') t, generate_series(1, 5) d;"
		beside = "insert into {t} select t, 9, 1 " +
			"from generate_series('2024-01-01 00:30'::timestamptz, '2024-01-03 23:00', '5 hours') t;"
		compress = "select compress_chunk(c) from show_chunks('{t}') c;"
		hourly   = `create materialized view {t}_hourly
            with (timescaledb.continuous, timescaledb.materialized_only = true) as
			select time_bucket('1 hour', ts) as h, dev, count(*) as n from {t} group by 1, 2 with no data;`
	)
	source = create + enable + rows
	if s.sends != "plain rows" {
		source += compress
	}
	demand := map[string]string{
		"rows":               "alter table {t} add check (v < 1e9);", // that end compressed
		"rows for a trigger": "create trigger nothing after insert on {t} for each row execute function nothing();",
	}
	target = create + demand[s.sends] + map[string]string{"same": enable, "changed": enable, "other": plain}[s.settings]
	if s.held != "nothing" {
		target += rows
	}
	if s.held == "batches" {
		target += compress
	}
	if s.settings == "changed" {
		source, target = source+plain, target+plain
	}
	if s.sends == "batches and rows" {
		source += beside
	}
	to := func(v string) *strings.Replacer { return strings.NewReplacer("{t}", name, "{v}", v) }
	if s.aggregate {
		return to("1").Replace(source), to("-1").Replace(target + hourly)
	}
	return to("1").Replace(source), to("-1").Replace(target)
}

// most is how many hypertables there are: they are drawn from all.
const most = 16

func newCrowded(t testing.TB, in testdb.Install, role string) *crowded {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	all := situations(!strings.HasPrefix(in.Version, "2.11."))
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	c := &crowded{source: testdb.New(t, in, "source"), target: testdb.New(t, in, "target")}
	c.to = c.target.ConnString
	c.target.Exec(t, "create function nothing() returns trigger language plpgsql as 'begin return null; end'")
	for i, s := range all[:min(most, len(all))] {
		name := fmt.Sprintf("t%d", i)
		t.Logf("%s: %+v", name, s)
		c.tables = append(c.tables, name)
		source, target := s.make(name)
		for _, sql := range strings.SplitAfter(source, ";") {
			c.source.Exec(t, sql)
		}
		for _, sql := range strings.SplitAfter(target, ";") { // an aggregate wants a transaction of its own
			c.target.Exec(t, sql)
		}
	}
	if role != roles[0] {
		c.to = c.target.Role(t, "bf_owner")
		for _, v := range c.target.Rows(t, "select format('%I.%I', view_schema, view_name) "+
			"from timescaledb_information.continuous_aggregates") {
			c.target.Exec(t, "alter materialized view "+v[0]+" owner to bf_owner")
		}
		c.target.Exec(t, "do $$declare c regclass; "+
			"begin for c in select format('%I.%I', hypertable_schema, hypertable_name)::regclass "+
			"from timescaledb_information.hypertables loop execute 'alter table '||c||' owner to bf_owner'; "+
			"end loop; execute 'grant create on database '||current_database()||' to bf_owner'; end$$")
		if role == roles[2] {
			c.target.Exec(t, "grant create on schema _timescaledb_internal to bf_owner")
		}
	}
	return c
}

// TestLatencyLanes has eight lanes at all the ways of writing a chunk, with all that decides about
// their locks, while an application reads and writes. What a lane holds of the
// application's it holds with the turn, in the order of locks, and does not wait.
func TestLatencyLanes(t *testing.T) {
	testdb.Path(t)
	edges, n := few(testdb.Installs(t)), 0
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		n++
		for i, role := range roles {
			if i != n%len(roles) && !slices.Contains(edges, p.Target) {
				continue // it takes a while: the others have other roles
			}
			t.Run(strings.ReplaceAll(role, " ", "-"), func(t *testing.T) {
				everyTime(t, func() error { return lanes(t, p.Target, role) })
			})
		}
	})
}

func lanes(t *testing.T, in testdb.Install, role string) error {
	c := newCrowded(t, in, role)
	env := []string{"BF_SOURCE=" + c.source.ConnString, "BF_TARGET=" + c.to}
	s := start(t, env, "bf-stage --until '2024-01-03 12:00'") // a part of the last chunk
	s.wait(t, deadline)
	if s.status() != 0 {
		t.Fatal(s.errors())
	}
	var statements []string
	for i, name := range c.tables {
		if i%3 == 0 {
			statements = append(statements, "select count(*) + $1 from "+name)
		} else {
			statements = append(statements, "insert into "+name+
				" values ('2024-01-02 12:00'::timestamptz + $1 * interval '1 second', 77, 1)")
		}
	}
	a := newInserts(t, c.target, statements...)
	idle := a.measure(func() { time.Sleep(300 * time.Millisecond) })
	busy := a.measure(func() {
		const lane = "for i in 1 2 3 4 5 6 7 8; do bf-chunks --claim | bf-dump | bf-load -q >/dev/null & done; wait;"
		s := start(t, env, lane+lane) // some come again by rows
		s.wait(t, deadline)
	})
	waits := check(t, in.String()+", "+role, idle, busy)
	ways := map[string]int{}
	for _, r := range c.target.Rows(t, "select coalesce(copy_message, ''), worked is not null, count(*) "+
		"from __backfill.task group by 1, 2") {
		if r[1] != "t" {
			t.Errorf("%s chunks are pending: %s", r[2], r[0])
		}
		way, _, _ := strings.Cut(r[0], ":")
		n, _ := strconv.Atoi(r[2])
		ways[way] += n
	}
	t.Logf("%v", ways)
	for _, name := range c.tables {
		const sum = "select count(*), sum(hashtextextended(m::text, 0)) from %s m where dev <> 77 " +
			"and ts < '2024-01-03 12:00'"
		want, got := c.source.Rows(t, fmt.Sprintf(sum, name)), c.target.Rows(t, fmt.Sprintf(sum, name))
		if !slices.Equal(want[0], got[0]) {
			t.Errorf("%s: %v, on the source %v", name, got, want)
		}
	}
	return waits
}

// TestLaneWaitsStops: the first TERM ends a lane that waits for a lock, and what it
// holds is free.
func TestLaneWaitsStops(t *testing.T) {
	testdb.Path(t)
	testdb.EachEdge(t, func(t *testing.T, p testdb.Pair) {
		source, target := testdb.New(t, p.Source, "source"), testdb.New(t, p.Target, "target")
		for _, d := range []*testdb.DB{source, target} {
			d.Exec(t, "create table m (ts timestamptz not null, v int); "+
				"select create_hypertable('m', 'ts', chunk_time_interval => interval '1 day')")
		}
		source.Exec(t, "insert into m select t, 1 "+
			"from generate_series('2024-01-01'::timestamptz, '2024-01-04', '1 hour') t")
		env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString}
		s := start(t, env, "bf-stage --until 2024-02-01")
		s.wait(t, deadline)
		app := target.Conn(t)
		for _, sql := range []string{"begin", "lock table only m in share mode"} { // no chunk can be made
			if _, err := app.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		s = start(t, env, "bf-chunks --claim | bf-dump | exec bf-load")
		const tries = "select count(*) from pg_locks l join pg_stat_activity a using (pid) " +
			"where a.application_name = 'bf-load' and a.datname = current_database() and not l.granted"
		within(t, deadline, "the load waits", func() bool {
			var n int
			target.Query1(t, &n, tries)
			return n > 0
		})
		for _, ps := range s.processes() {
			if strings.HasPrefix(ps.name, "bf-") {
				syscall.Kill(ps.pid, syscall.SIGTERM)
			}
		}
		within(t, 15*time.Second, "the lane has ended", func() bool { return len(s.processes()) == 0 })
		s.wait(t, deadline)
		if s.status() != 130 {
			t.Errorf("status %d\n%s", s.status(), s.errors())
		}
		if failed := target.Rows(t, "select priority, copy_message from __backfill.task "+
			"where failed is not null"); len(failed) > 0 {
			t.Errorf("a task that was given up counts as failed: %v", failed)
		}
		if _, err := app.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
		s = start(t, env, "bf-chunks --claim | bf-dump | bf-load -q")
		if s.wait(t, deadline); s.status() != 0 {
			t.Errorf("status %d\n%s", s.status(), s.errors())
		}
		if want, got := source.Rows(t, "select count(*), min(v) from m"),
			target.Rows(t, "select count(*), min(v) from m"); !slices.Equal(want[0], got[0]) {
			t.Errorf("%v, on the source %v", got, want)
		}
	})
}

// TestTinyChunks copies chunks of a few rows, all of which need the same short
// locks, by one lane and by four: those share the work, and are no slower.
func TestTinyChunks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	testdb.Path(t)
	full := slices.DeleteFunc(slices.Clone(testdb.Installs(t)), func(in testdb.Install) bool { return !in.Full })
	if len(full) == 0 {
		t.Skip("no full edition of TimescaleDB here: nothing is compressed")
	}
	for _, in := range few(full) {
		t.Run(in.String(), func(t *testing.T) {
			everyTime(t, func() error { return tinyChunks(t, in) })
		})
	}
}

func tinyChunks(t *testing.T, in testdb.Install) error {
	source, target := testdb.New(t, in, "source"), testdb.New(t, in, "target")
	const (
		create = "create table %[1]s (ts timestamptz not null, dev int not null); " +
			"select create_hypertable('%[1]s', 'ts', chunk_time_interval => interval '1 hour');"
		enable = "alter table %[1]s set (timescaledb.compress, timescaledb.compress_segmentby = 'dev', " +
			"timescaledb.compress_orderby = 'ts');"
		other = "alter table %[1]s set (timescaledb.compress, timescaledb.compress_segmentby = '', " +
			"timescaledb.compress_orderby = 'ts');"
		rows = "insert into %[1]s select t, 1 " +
			"from generate_series('2024-01-01'::timestamptz, '2024-01-06 03:40', '20 minutes') t;"
		pack = "select compress_chunk(c) from show_chunks('%[1]s') c;"
	)
	counts := []int{1, 4} // lanes
	kinds := []struct{ source, target string }{{rows, ""}, {enable + rows + pack, enable},
		{enable + rows + pack, other}}
	if strings.HasPrefix(in.Version, "2.11.") {
		kinds = kinds[:2] // it has no settings per chunk: the third would come again as rows
	}
	for i, kind := range kinds {
		for _, lanes := range counts {
			name := fmt.Sprintf("t%d%d", i, lanes)
			source.Exec(t, fmt.Sprintf(create+kind.source, name))
			target.Exec(t, fmt.Sprintf(create+kind.target, name))
		}
	}
	env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString}
	s := start(t, env, "bf-stage -q --until 2024-02-01 >/dev/null")
	s.wait(t, deadline)
	took := map[int]time.Duration{}
	shares := make([]int, 4)
	for i := range kinds {
		for _, lanes := range counts {
			d, n := lanesOf(t, env, target, lanes, fmt.Sprintf(`^public\.t%d%d$`, i, lanes))
			took[lanes] += d
			for lane, n := range n {
				if lanes > 1 {
					shares[lane] += n
				}
			}
		}
	}
	t.Logf("one lane %v, four lanes %v, which shared %v", took[1].Round(time.Millisecond),
		took[4].Round(time.Millisecond), shares)
	if n := target.Rows(t, "select count(*) from __backfill.task where worked is null"); n[0][0] != "0" {
		t.Errorf("%s tasks are pending", n[0][0])
	}
	if slices.Max(shares) > 2*slices.Min(shares) {
		return fmt.Errorf("lanes share unevenly: %v", shares)
	}
	if took[4] > took[1]*5/4 { // a machine has its moods
		return fmt.Errorf("four lanes take %v for what one does in %v", took[4], took[1])
	}
	return nil
}

// lanesOf lets lanes go at the same moment, and returns how long they take from there,
// and the chunks that each has done by the time that the first of them ran out of
// work: how fast a machine starts processes, and who is left with the last few chunks,
// says nothing of how they share.
func lanesOf(
	t *testing.T, env []string, target *testdb.DB, lanes int, filter string) (took time.Duration, shares []int) {
	t.Helper()
	app := target.Conn(t)
	turn := func(f string) {
		if _, err := app.Exec(t.Context(), fmt.Sprintf("select pg_advisory_%s(%d, 0)", f, pg.LockTurn)); err != nil {
			t.Fatal(err)
		}
	}
	turn("lock")
	s := start(t, env, fmt.Sprintf(`for i in $(seq 0 %d); do
		bf-chunks --claim --filter '%s' | bf-dump | bf-load -q | sed -u "s/^/$i /" & done; wait`, lanes-1, filter))
	waiting := fmt.Sprintf(`select pid from pg_locks where locktype = 'advisory' and classid = %d::oid
		and not granted and database = (select oid from pg_database where datname = current_database())`, pg.LockTurn)
	there := map[string]bool{}
	within(t, deadline, "all lanes want the turn", func() bool {
		for _, r := range target.Rows(t, waiting) {
			there[r[0]] = true
		}
		return len(there) == lanes
	})
	began := time.Now()
	turn("unlock")
	s.wait(t, deadline)
	took = time.Since(began)
	of := map[string]int{} // lanes by the numbers of their tasks
	for line := range strings.Lines(s.output()) {
		lane, record, _ := strings.Cut(line, " ")
		var r task.Result
		if err := json.Unmarshal([]byte(record), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		of[fmt.Sprint(r.Task)], _ = strconv.Atoi(lane)
	}
	var order []int // the lanes, chunk after chunk
	for _, r := range target.Rows(t,
		"select priority from __backfill.task where worked is not null order by upper(worked)") {
		if lane, ok := of[r[0]]; ok {
			order = append(order, lane)
		}
	}
	end, shares := len(order), make([]int, lanes)
	for lane := range lanes {
		last := 0
		for i, l := range order {
			if l == lane {
				last = i + 1
			}
		}
		end = min(end, last)
	}
	for _, lane := range order[:end] {
		shares[lane]++
	}
	return took, shares
}
