package chaos

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
)

// halted is both sides of loads that are halted in the middle of their COPY.
type halted struct {
	t              *testing.T
	source, target *testdb.DB
	env            []string
}

// newHalted has chunks of eight days on the source and of one day on the target, where
// some are there already.
func newHalted(t *testing.T, p testdb.Pair) *halted {
	t.Helper()
	h := &halted{t: t, source: testdb.New(t, p.Source, "source"), target: testdb.New(t, p.Target, "target")}
	for d, interval := range map[*testdb.DB]string{h.source: "8 days", h.target: "1 day"} {
		d.Exec(t, `create table device (id int primary key, name text);
			insert into device values (1, 'one');
			create table m (time timestamptz not null, dev int not null references device, v text,
			unique (time, dev));
			select create_hypertable('m', 'time', chunk_time_interval => interval '`+interval+`')`)
	}
	h.source.Exec(t, "insert into m select t, 1, repeat('x', 3000) "+
		"from generate_series('2023-12-28'::timestamptz, '2024-01-30', '1 hour') t")
	h.target.Exec(t, "insert into m select t, 1, 'stale' "+
		"from generate_series('2024-01-03'::timestamptz, '2024-01-05', '1 day') t")
	h.env = append(os.Environ(), "BF_SOURCE="+h.source.ConnString, "BF_TARGET="+h.target.ConnString)
	return h
}

func (h *halted) tool(script string) *exec.Cmd {
	c := exec.CommandContext(h.t.Context(), "sh", "-c", script)
	c.Env, c.Stderr = h.env, os.Stderr
	return c
}

// inCopy loads the task, calls f when nine tenths of it are in the COPY, and returns the
// result record. A task of too few rows is left alone: they are all read before the COPY
// begins.
func (h *halted) inCopy(record string, f func()) string {
	h.t.Helper()
	dump := h.tool("exec bf-dump")
	dump.Stdin = strings.NewReader(record)
	stream, err := dump.Output()
	if err != nil {
		h.t.Fatal(err)
	}
	if len(stream) < 500<<10 {
		return ""
	}
	load := h.tool("exec bf-load -q")
	in, _ := load.StdinPipe()
	var out strings.Builder
	load.Stdout = &out
	if err := load.Start(); err != nil {
		h.t.Fatal(err)
	}
	if _, err := in.Write(stream[:len(stream)*9/10]); err != nil {
		h.t.Fatal(err)
	}
	within(h.t, 10*time.Second, "the load is in its COPY", func() bool {
		var n int
		h.target.Query1(h.t, &n, "select count(*) from pg_stat_activity where application_name = 'bf-load' "+
			"and datname = current_database() and query ~* '(^|; )copy ' and query not ilike '%first_row%' "+
			"and state = 'active'")
		return n == 1
	})
	f()
	if _, err := in.Write(stream[len(stream)*9/10:]); err != nil {
		h.t.Fatal(err)
	}
	in.Close()
	if err := load.Wait(); err != nil {
		h.t.Errorf("%v\n%s", err, out.String())
	}
	return out.String()
}

// besideLoad is what the application does while a chunk is loaded; $1 is a number.
var besideLoad = map[string]string{
	"a chunk that exists": "insert into m " +
		"values ('2024-02-01'::timestamptz + $1 * interval '1 minute', 1, 'app')",
	"a new chunk": "insert into m " +
		"values ('2025-01-01'::timestamptz + $1 * interval '1 day', 1, 'app')",
	"a referenced table": "insert into device values (100 + $1, 'app')",
	"a referenced row":   "update device set name = 'app ' || $1::int where id = 1",
	"the chunk that loads": "insert into m " +
		"select least(range_end, '2024-01-28 12:00') - interval '1 microsecond' * (1 + $1), 1, 'app' " +
		"from timescaledb_information.chunks where hypertable_name = 'm' order by range_start desc limit 1",
	"an old chunk, by read": "select count(*) + $1 from m",
}

// TestLocks stops loads in the middle of their COPY and looks whether the
// application can go on: rows into chunks that exist, into new ones and into
// the table that hypertables reference. That goes for rows that are copied
// into the chunk and for those that go through the root because the target
// has other chunks there already.
func TestLocks(t *testing.T) {
	testdb.Path(t)
	testdb.EachVersion(t, func(t *testing.T, p testdb.Pair) {
		h := newHalted(t, p)
		if err := h.tool("bf-stage -q --until 2024-01-28").Run(); err != nil {
			t.Fatal(err)
		}
		records, err := h.tool("bf-chunks").Output()
		if err != nil {
			t.Fatal(err)
		}
		app := h.target.Conn(t)
		if _, err := app.Exec(t.Context(), "set statement_timeout = '2s'"); err != nil {
			t.Fatal(err)
		}
		ways := map[string]bool{}
		for i, record := range slices.Collect(strings.Lines(string(records))) {
			out := h.inCopy(record, func() {
				for name, sql := range besideLoad {
					start := time.Now()
					if _, err := app.Exec(t.Context(), sql, i); err != nil {
						t.Errorf("%s: while %s is loaded: %v", name, record[:60], err)
					}
					if d := time.Since(start); d > time.Second {
						t.Errorf("%s: while %s is loaded: %v", name, record[:60], d)
					}
				}
			})
			for _, way := range []string{"into the chunk", "through the hypertable"} {
				if strings.Contains(out, way) {
					ways[way] = true
				}
			}
		}
		// The Apache edition cannot make a chunk of an extent that is not its own.
		if !ways["through the hypertable"] || p.Target.Full && !ways["into the chunk"] {
			t.Errorf("ways that were tried: %v", ways)
		}
		if err := h.tool("bf-chunks | bf-dump | bf-load -q > /dev/null").Run(); err != nil {
			t.Error(err)
		}
		const rows = "select count(*), sum(hashtextextended(m::text, 0)) from m where time < '2024-01-28' " +
			"and v <> 'app'"
		if a, b := h.source.Rows(t, rows), h.target.Rows(t, rows); !slices.Equal(a[0], b[0]) {
			t.Errorf("source %v, target %v", a, b)
		}
	})
}

// within fails unless f is true in time.
func within(t testing.TB, most time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}
