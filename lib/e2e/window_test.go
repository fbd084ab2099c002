package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bf/lib/task"
	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
)

// windowSQL makes hypertables with a key, without one, and in partitions, cut into
// chunks of the given width.
const windowSQL = `create table keyed (
	    time timestamptz not null, "Gerät" int not null, v numeric, note text, primary key (time, "Gerät"));
	select create_hypertable('keyed', 'time', chunk_time_interval => interval '{width}');
	create table "No Key" (at timestamptz not null, what text, n int);
	select create_hypertable('"No Key"', 'at', chunk_time_interval => interval '{width}');
	create table parts (time timestamptz not null, dev int not null, v float8, primary key (time, dev));
	select create_hypertable('parts', 'time', 'dev', {partitions}, chunk_time_interval => interval '{width}')`

// application writes rows to both sides, first to one and a moment later to the
// other: new ones, late ones, and other values in old ones.
type application struct {
	conns [2]*pgx.Conn
	late  atomic.Bool // it also writes in the past
	stop  context.CancelFunc
	done  chan error
}

func startApplication(t testing.TB, p *pair, seed uint64) *application {
	ctx, stop := context.WithCancel(context.Background())
	a := &application{conns: [2]*pgx.Conn{p.src.Conn(t), p.dst.Conn(t)}, stop: stop, done: make(chan error, 1)}
	a.late.Store(true)
	go func() { a.done <- a.run(ctx, rand.New(rand.NewPCG(1, seed))) }()
	t.Cleanup(stop)
	return a
}

func (a *application) run(ctx context.Context, r *rand.Rand) error {
	for n := 0; ctx.Err() == nil; n++ {
		ago, dev := 0, 100+r.IntN(1000)
		if a.late.Load() {
			ago = r.IntN(5 * 3600)
		}
		at := time.Now().Add(-time.Duration(ago) * time.Second).UTC().Format(time.RFC3339Nano)
		write := func(side int, sql string) error {
			_, err := a.conns[side].Exec(context.Background(), sql)
			return err
		}
		sql := []string{
			fmt.Sprintf(`insert into keyed values ('%s', %d, %d, 'app') on conflict do nothing`, at, dev, n),
			fmt.Sprintf(`insert into "No Key" values ('%s', 'app', %d)`, at, n),
			fmt.Sprintf(`insert into parts values ('%s', %d, %d) on conflict do nothing`, at, dev, n),
			fmt.Sprintf(`update keyed set v = %d where note = 'counter'`, n),
		}[r.IntN(3+min(1, ago))]
		first := r.IntN(2)
		if err := write(first, sql); err != nil {
			return err
		}
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		if err := write(1-first, sql); err != nil {
			return err
		}
	}
	return nil
}

func (a *application) end(t testing.TB) {
	t.Helper()
	a.stop()
	if err := <-a.done; err != nil {
		t.Error("application: ", err)
	}
}

// sliceResult is a record of bf-verify --from.
type sliceResult struct {
	Kind  string
	Range task.Range
	task.Result
}

// window runs bf-verify --from and returns its output and what it found of slices
// that differ: "table key: source, target".
func (p *pair) window(t testing.TB, status int, args ...string) (out string, found []string) {
	t.Helper()
	r := p.run(t, "", "bf-verify", append([]string{"--source", p.source, "--target", p.target}, args...)...)
	if r.status != status {
		t.Fatalf("bf-verify %q: exit status %d, not %d\n%s%s", args, r.status, status, r.stderr, r.stdout)
	}
	for _, l := range lines(r.stdout) {
		var s sliceResult
		if err := json.Unmarshal([]byte(l), &s); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		if s.Kind != "result" {
			continue
		}
		for _, d := range s.Differences {
			found = append(found, fmt.Sprintf("%s %s %s: %s, %s",
				s.Hypertable.Name, d.Key, d.Column, d.Source, d.Target))
		}
	}
	slices.Sort(found)
	return r.stdout, found
}

// TestVerifyWindow: what dual writes lose, double, delay and change is found, each
// row of it, and nothing else while an application goes on writing to both sides;
// what is found is healed from what is printed.
func TestVerifyWindow(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		seed := rand.Uint64()
		t.Logf("random seed %d", seed)
		r := rand.New(rand.NewPCG(0, seed))
		p := newPair(t, v)
		p.src.Exec(t, strings.NewReplacer("{width}", "1 hour", "{partitions}", "3").Replace(windowSQL))
		p.dst.Exec(t, strings.NewReplacer("{width}", "90 minutes", "{partitions}", "2").Replace(windowSQL))
		from := time.Now().Add(-72 * time.Hour).UTC().Truncate(time.Second)
		began := time.Now().Add(-5 * time.Hour).UTC().Truncate(time.Minute).Format(time.RFC3339)
		// Up to the same minute, though the one side may come later.
		p.both(t, fmt.Sprintf(`create temporary table minutes as
			select t from generate_series(timestamptz '%[1]s', timestamptz '%[1]s' + '5 hours', '1 minute') t;
			insert into keyed select t, d, extract(epoch from t)::int %% 7, 'x' from minutes, generate_series(1, 3) d;
			insert into "No Key" select t, 'w' || d, d from minutes, generate_series(1, 2) d;
			insert into parts select t, d, d from minutes, generate_series(1, 5) d;
			insert into keyed values ('%[1]s', 0, 0, 'counter')`, began))
		if v.Source.Full {
			p.src.Exec(t, `alter table keyed set (timescaledb.compress, timescaledb.compress_segmentby = '"Gerät"');
				select compress_chunk(c) from show_chunks('keyed', older_than => interval '3 hours 1 minute',
				    newer_than => interval '4 hours 30 minutes') c`)
		}
		app := startApplication(t, p, seed)
		args := []string{"--from", from.Format(time.RFC3339), "--lag", "2s", "--parallelism", "3"}
		if _, found := p.window(t, 0, args...); len(found) > 0 {
			t.Errorf("invented: %q", found)
		}

		want := damage(t, p, r, began)
		out, found := p.window(t, 3, args...)
		diff(t, "what was done to the rows", want, found)

		// The application writes no old rows any more, so that nothing is under way
		// where rows are replaced.
		app.late.Store(false)
		time.Sleep(100 * time.Millisecond)
		heal := p.run(t, out, "bf-stage", "--target", p.target)
		if heal.status != 0 || len(lines(heal.stdout)) == 0 {
			t.Fatalf("bf-stage: %d %s", heal.status, heal.stderr)
		}
		p.copy(t)
		p.dst.Exec(t, "delete from keyed where note = 'alone'")
		out, _ = p.window(t, 0, args...)
		none := p.run(t, out, "bf-stage", "--target", p.target)
		if none.status != 0 || !strings.Contains(none.stderr, "nothing that could be copied again differs") {
			t.Errorf("bf-stage: %d %s", none.status, none.stderr)
		}

		// A task that is done is done again.
		p.dst.Exec(t, "update keyed set v = -1 where time = (select min(time) from keyed)")
		out, _ = p.window(t, 3, args...)
		p.ok(t, out, "bf-stage", "--target", p.target)
		p.copy(t)
		app.end(t)
		p.window(t, 0, args...)
		p.same(t, "select * from keyed")
		p.same(t, "select * from parts")
	})
}

// damage does to rows what dual writes do when they fail, and returns what should
// be found.
func damage(t testing.TB, p *pair, r *rand.Rand, began string) (want []string) {
	t.Helper()
	used := map[string]bool{}
	at := func() string { // a time that rows of all tables have, each once
		for {
			b, _ := time.Parse(time.RFC3339, began)
			s := b.Add(time.Duration(1+r.IntN(280)) * time.Minute).Format("2006-01-02 15:04:05+00")
			if !used[s] {
				used[s] = true
				return s
			}
		}
	}
	say := func(format string, args ...any) { want = append(want, fmt.Sprintf(format, args...)) }
	for range 3 {
		a := at() // lost on the target
		p.dst.Exec(t, fmt.Sprintf(`delete from keyed where time = '%[1]s' and "Gerät" = 1;
			delete from "No Key" where at = '%[1]s' and n = 1; delete from parts where time = '%[1]s' and dev = 4`, a))
		say(`keyed (time=%s, Gerät=1) : present, absent`, a)
		say(`No Key (at=%s, n=1, what=w1) : present, absent`, a)
		say(`parts (time=%s, dev=4) : present, absent`, a)
		a = at() // lost on the source
		p.src.Exec(t, fmt.Sprintf(`delete from "No Key" where at = '%[1]s' and n = 2;
			delete from parts where time = '%[1]s' and dev = 5`, a))
		say(`No Key (at=%s, n=2, what=w2) : absent, present`, a)
		say(`parts (time=%s, dev=5) : absent, present`, a)
		a = at() // doubled
		p.dst.Exec(t, fmt.Sprintf(`insert into "No Key" select x.* from "No Key" x, generate_series(1, 8)
			where at = '%s' and n = 1`, a))
		say(`No Key (at=%s, n=1, what=w1) : present, 9 times`, a)
		a = at() // late: it has another time there
		p.dst.Exec(t, fmt.Sprintf(`update keyed set time = time + '7 seconds' where time = '%[1]s' and "Gerät" = 2`, a))
		say(`keyed (time=%s, Gerät=2) : present, absent`, a)
		say(`keyed (time=%s, Gerät=2) : absent, present`, strings.Replace(a, ":00+00", ":07+00", 1))
		a = at() // wrong
		p.dst.Exec(t, fmt.Sprintf(`update keyed set v = 99 where time = '%s' and "Gerät" = 3`, a))
		var was string
		p.src.Query1(t, &was, fmt.Sprintf(`select v::text from keyed where time = '%s' and "Gerät" = 3`, a))
		say(`keyed (time=%s, Gerät=3) v: %s, 99`, a, was)
	}
	// Where the source has no chunk.
	b, _ := time.Parse(time.RFC3339, began)
	a := b.Add(-24 * time.Hour).Format("2006-01-02 15:04:05+00")
	p.dst.Exec(t, fmt.Sprintf(`insert into keyed values ('%s', 1, 1, 'alone')`, a))
	say(`keyed (time=%s, Gerät=1) : absent, present`, a)
	slices.Sort(want)
	return want
}
