package chaos

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	//go:embed testdata/schema.sql
	schemaSQL string
	//go:embed testdata/source.sql
	sourceSQL string
	//go:embed testdata/digest.sql
	digestSQL string
)

// until is the completion point: in the middle of a day, so that one chunk per
// hypertable is staged in part.
const until = "2024-01-25 12:00:00+00"

// world is a source and a target with a backfill between them.
type world struct {
	t              testing.TB
	full           bool
	source, target *testdb.DB
	toSource       *proxy
	toTarget       *proxy
	env            []string // of the tools
	files          string   // directory of the CSV file
	rnd            *rand.Rand

	want  map[string]string // digest of each cell of the source, when it was staged
	stale map[string]string // of the target, before anything was copied
	done  map[string]string // when each task that is done worked
	gone  map[string]bool   // cells whose chunk was dropped on the source

	checked int // chunk states compared
}

func newWorld(t testing.TB, p testdb.Pair, rnd *rand.Rand) *world {
	t.Helper()
	w := &world{t: t, rnd: rnd, full: p.Source.Full && p.Target.Full}
	w.source = testdb.NewServer(t, p.Source, "source", config).DB(t)
	w.target = testdb.NewServer(t, p.Target, "target", config).DB(t)
	var source, target string
	w.toSource, source = newProxy(t, w.source)
	w.toTarget, target = newProxy(t, w.target)
	scripts, err := filepath.Abs("../../scripts")
	if err != nil {
		t.Fatal(err)
	}
	w.files = t.TempDir()
	w.env = []string{"BF_SOURCE=" + source, "BF_TARGET=" + target, "SCRIPTS=" + scripts}
	for _, d := range []*testdb.DB{w.source, w.target} {
		coarse := "1 day"
		if d == w.target {
			coarse = "3 days" // rows have to go through the root
		}
		var hash string
		d.Query1(t, &hash, "select coalesce(to_regproc('_timescaledb_functions.get_partition_hash'), "+
			"to_regproc('_timescaledb_internal.get_partition_hash'))::text")
		d.Exec(t, strings.NewReplacer("{coarse}", coarse, "{hash}", hash).Replace(schemaSQL))
		if d == w.target {
			d.Exec(t, "alter table tight add check (dev >= 0); alter table listed_rows rename to listed; "+
				"select create_hypertable(t, 'time', chunk_time_interval => interval '1 day') "+
				"from unnest('{heaped,listed}'::regclass[]) t")
		}
		if w.full {
			for _, h := range []string{"packed", "tight", "watched"} {
				d.Exec(t, "alter table "+h+" set (timescaledb.compress, timescaledb.compress_segmentby = 'dev', "+
					"timescaledb.compress_orderby = 'time')")
				if h != "watched" { // aggregates are told of copies, and change how chunks are emptied
					d.Exec(t, "create materialized view "+h+
						"_hourly with (timescaledb.continuous, timescaledb.materialized_only) as "+
						"select time_bucket('1 hour', time) as hour, count(*) from "+h+" group by 1 with no data")
				}
			}
		}
	}
	return w
}

// config of the servers: what they said is committed stays so when they crash,
// and the logs that a failing test shows are short.
var config = testdb.WithConfig("synchronous_commit = on", "log_min_messages = panic", "log_min_error_statement = panic")

// hypertables are those of schema.sql.
var hypertables = []string{"plain", "linked", "coarse", "hashed", "packed", "tight", "watched"}

// reset makes source and target as they were at the beginning. On the target
// there are stale rows in some of the chunks that are to be copied.
func (w *world) reset() {
	w.t.Helper()
	for _, d := range []*testdb.DB{w.source, w.target} {
		d.Exec(w.t, "drop schema if exists __backfill cascade; truncate seen; truncate heaped; truncate "+w.listed(d))
		for _, h := range hypertables {
			d.Rows(w.t, "select drop_chunks('"+h+"', newer_than => '-infinity'::timestamptz)")
		}
	}
	if w.full {
		w.segmentBy("dev")
	}
	w.source.Exec(w.t, sourceSQL)
	w.list()
	w.target.Exec(w.t, "insert into packed select d + n * interval '20 minutes', n % 7, 1, 'stale' "+
		"from generate_series('2024-01-16'::timestamptz, '2024-01-19', '1 day') d, generate_series(0, 49) n")
	w.target.Exec(w.t, "insert into tight select d + n * interval '20 minutes', n % 7, 1, 'stale' "+
		"from generate_series('2024-01-18'::timestamptz, '2024-01-23', '1 day') d, generate_series(0, 49) n")
	w.target.Exec(w.t, "insert into watched select * from tight where time >= '2024-01-20'; truncate seen")
	if w.full {
		w.source.Rows(w.t, "select compress_chunk(c) from show_chunks('packed') c")
		w.source.Rows(w.t, "select compress_chunk(c) "+
			"from show_chunks('tight', newer_than => '2024-01-21'::timestamptz) c")
		w.source.Rows(w.t, "select compress_chunk(c) "+
			"from show_chunks('watched', newer_than => '2024-01-20'::timestamptz) c")
		w.target.Rows(w.t, "select compress_chunk(c) "+
			"from show_chunks('packed', older_than => '2024-01-18'::timestamptz) c")
		w.target.Rows(w.t, "select compress_chunk(c) "+
			"from show_chunks('tight', older_than => '2024-01-23'::timestamptz) c")
		w.target.Rows(w.t, "select compress_chunk(c) "+
			"from show_chunks('watched', older_than => '2024-01-22'::timestamptz) c")
		w.segmentBy("") // by now: chunks have to have the settings that they were compressed with
	}
	w.target.Exec(w.t, `insert into heaped select d + interval '1 hour', 99, 1, 'stale'
        from generate_series('2024-01-17'::timestamptz, '2024-01-24', '2 days') d;
		insert into listed select d + interval '1 hour', 99, 1, 'stale'
        from generate_series('2024-01-15'::timestamptz, '2024-01-24', '3 days') d;
		insert into plain select d + interval '1 hour', 99, 1, 'stale'
        from generate_series('2024-01-02'::timestamptz, '2024-01-24', '5 days') d;
		insert into coarse select d + interval '1 hour', 1, 1
		from generate_series('2024-01-20'::timestamptz, '2024-01-24', '2 days') d;
		insert into hashed select d + interval '1 hour', n, 0, 1
		from generate_series('2024-01-20'::timestamptz, '2024-01-22', '1 day') d, generate_series(1, 3) n`)
	w.want, w.stale = w.cells(w.source), w.cells(w.target)
	w.done, w.gone = map[string]string{}, map[string]bool{}
}

// segmentBy changes the settings of "packed" on both sides. 2.11 has one set for all
// chunks of a hypertable.
func (w *world) segmentBy(columns string) {
	w.t.Helper()
	for _, d := range []*testdb.DB{w.source, w.target} {
		if !strings.HasPrefix(d.Install.Version, "2.11.") {
			d.Exec(w.t, "alter table packed set (timescaledb.compress_segmentby = '"+columns+"')")
		}
	}
}

// listed is the name of the table whose rows come from a file.
func (w *world) listed(d *testdb.DB) string {
	if d == w.target {
		return "listed"
	}
	return "listed_rows"
}

// digest is the statement of the digests on a side.
func (w *world) digest(d *testdb.DB) string {
	return strings.NewReplacer("{until}", until, "{listed}", w.listed(d)).Replace(digestSQL)
}

// cells are the digests of what is before the completion point, by hypertable
// and chunk of the source.
func (w *world) cells(d *testdb.DB) map[string]string {
	m := map[string]string{}
	for _, r := range d.Rows(w.t, "set timezone = 'UTC';"+w.digest(d)) {
		m[r[0]] = r[1]
	}
	return m
}

// check compares every staged chunk with the source in one snapshot of the
// target: it has to be whole where its task is done, untouched where it is
// not, and a task that was done stays done by the same copy. It returns how
// many tasks are pending.
func (w *world) check(after string) (pending int) {
	w.t.Helper()
	// A compressed relation is filled with frozen rows, as by COPY FREEZE, and
	// TimescaleDB reads its catalogs by their newest version: a snapshot from
	// just before the commit may see the chunk although its task is pending.
	// The next snapshot does not.
	var before []string
	for {
		wrong, pending := w.look()
		if before != nil {
			wrong = slices.DeleteFunc(wrong, func(s string) bool { return !slices.Contains(before, s) })
		}
		if len(wrong) == 0 {
			return pending
		}
		if before != nil || slices.ContainsFunc(wrong, func(s string) bool {
			return !strings.Contains(s, "(packed/") && !strings.Contains(s, "(tight/") &&
				!strings.Contains(s, "(watched/")
		}) {
			w.t.Fatalf("after %s:\n%s", after, strings.Join(wrong, "\n"))
		}
		before = wrong
	}
}

// look is one look of check.
func (w *world) look() (wrong []string, pending int) {
	w.t.Helper()
	results := w.query(w.target, "begin isolation level repeatable read; set local timezone = 'UTC';"+
		"select priority, "+cellOfTask+", coalesce(worked::text, ''), coalesce(copy_message, '') from __backfill.task;"+
		w.digest(w.target)+"; commit")
	have := map[string]string{}
	for _, r := range results[3].Rows {
		have[string(r[0])] = string(r[1])
	}
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, r := range results[2].Rows {
		task, cell, worked, message := string(r[0]), string(r[1]), string(r[2]), string(r[3])
		w.checked++
		want, state := w.want[cell], "whole"
		switch {
		case worked == "":
			pending++
			want, state = w.stale[cell], "untouched"
		case strings.HasPrefix(message, "gone"):
			want, state = w.stale[cell], "untouched (gone)"
			if !w.gone[cell] {
				say("task %s (%s) is gone, but its chunk was not dropped", task, cell)
			}
		}
		if was := w.done[task]; was != "" && was != worked {
			say("task %s (%s) worked twice: %s, then %q", task, cell, was, worked)
		}
		if worked != "" {
			w.done[task] = worked
		}
		if have[cell] != want {
			say("task %s (%s) is not %s (worked %q, message %q): has %q, want %q", task, cell, state, worked, message,
				have[cell], want)
		}
	}
	return wrong, pending
}

// cellOfTask names the cell of a task as digest.sql does.
const cellOfTask = `hypertable_name || '/' || to_char(to_timestamp((dimensions->0->>'from')::bigint / 1000000), ` +
	`'YYYY-MM-DD')
	|| case when hypertable_name = 'hashed' then '/' || case when (dimensions->1->>'from')::bigint < 0 then 0 else 1 ` +
	`end else '' end`

// run runs a shell command to its end and returns what it printed.
func (w *world) run(f feed, script string) (stdout, stderr string, status int) {
	w.t.Helper()
	s := start(w.t, f.env, script)
	s.wait(w.t, deadline)
	return s.output(), s.errors(), s.status()
}

// stage stages everything before the completion point.
func (w *world) stage() {
	w.t.Helper()
	tables, file := w.feeds()
	for _, f := range []feed{tables, file} {
		if _, stderr, status := w.run(f, f.bfStage()); status != 0 {
			w.t.Fatalf("bf-stage: status %d\n%s", status, stderr)
		}
	}
}

// query runs SQL, again while the server crashes.
func (w *world) query(d *testdb.DB, sql string) []*pgconn.Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for {
		conn := w.admin(ctx, d)
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		conn.Close(ctx)
		if err == nil {
			return results
		}
		var no *pgconn.PgError
		if errors.As(err, &no) && no.Severity != "FATAL" && no.Code != "57P02" {
			w.t.Fatalf("%v\nin: %s", err, sql)
		}
	}
}

// deadline bounds everything that waits: far more than it takes, so that only
// what hangs reaches it.
const deadline = 90 * time.Second

// admin connects as superuser around the proxy, again and again while the
// server is down.
func (w *world) admin(ctx context.Context, d *testdb.DB) *pgx.Conn {
	w.t.Helper()
	for {
		conn, err := pgx.Connect(ctx, d.ConnString) // the socket, not the proxy
		if err == nil {
			return conn
		}
		if ctx.Err() != nil {
			w.t.Fatalf("connect to %s: %v", d.Server.Install, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// few are the first and the last version.
func few(all []testdb.Install) []testdb.Install {
	return slices.Compact([]testdb.Install{all[0], all[len(all)-1]})
}
