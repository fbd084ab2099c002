package chaos

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestCorruptNetwork flips bits on the way between the servers and the tools.
// PostgreSQL's protocol has no checksum, but TLS notices each of them: chunks
// are whole or untouched, and the pipeline goes on when it is run again.
func TestCorruptNetwork(t *testing.T) {
	testdb.Path(t)
	in := testdb.Installs(t)[0]
	source, target := testdb.NewServer(t, in, "source", config, testdb.WithTLS()).DB(t),
		testdb.NewServer(t, in, "target", config, testdb.WithTLS()).DB(t)
	toSource, sourceConn := newProxy(t, source)
	toTarget, targetConn := newProxy(t, target)
	env := []string{"BF_SOURCE=" + sourceConn, "BF_TARGET=" + targetConn}
	for _, d := range []*testdb.DB{source, target} {
		d.Exec(t, "create table m (time timestamptz not null, v text); "+
			"select create_hypertable('m', 'time', chunk_time_interval => interval '1 day'); set timezone = 'UTC'")
	}
	source.Exec(t, "insert into m select d + n * interval '1 minute', repeat('x', n) "+
		"from generate_series('2024-01-01'::timestamptz, '2024-01-04', '1 day') d, generate_series(1, 300) n")
	run := func(script string) *session {
		s := start(t, env, script)
		s.wait(t, deadline)
		return s
	}
	if s := run("bf-stage --until 2024-02-01"); s.status() != 0 {
		t.Fatal(s.errors())
	}
	const digest = "select time::date, count(*) || ' rows, ' || sum(hashtextextended(m::text, 0)) from m group by 1"
	want := map[string]string{}
	for _, r := range source.Rows(t, digest) {
		want[r[0]] = r[1]
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	failed, flipped := 0, 0
	const runs = 40
	for range runs {
		target.Exec(t, "update __backfill.task set worked = null; delete from m")
		p := []*proxy{toSource, toTarget}[rnd.IntN(2)]
		p.corrupt(1 + rnd.IntN(250_000))
		s := start(t, env, "bf-chunks --claim | bf-dump | bf-load")
		// A length that is damaged makes one side wait for what never comes, until
		// somebody ends the connection.
		stuck := time.AfterFunc(20*time.Second, func() { p.cut(-1) })
		s.wait(t, deadline)
		stuck.Stop()
		hit := !p.corrupt(0)
		if hit {
			flipped++
		}
		have := map[string]string{}
		for _, r := range target.Rows(t, digest) {
			have[r[0]] = r[1]
		}
		left := 0
		for _, r := range target.Rows(t, "select to_char(to_timestamp((dimensions->0->>'from')::bigint / 1000000), "+
			"'YYYY-MM-DD'), worked is null from __backfill.task") {
			expect := want[r[0]]
			if r[1] == "t" {
				expect = ""
				left++
			}
			if have[r[0]] != expect {
				t.Errorf("%s (pending: %s) has %q, want %q\n%s", r[0], r[1], have[r[0]], expect, s.errors())
			}
		}
		if left > 0 {
			failed++
		}
		if !hit && (s.status() != 0 || left > 0) {
			t.Errorf("nothing was damaged: status %d, %d tasks are pending\n%s", s.status(), left, s.errors())
		}
	}
	t.Logf("%d runs, %d with a flipped bit, %d did not come to their end", runs, flipped, failed)
	if flipped < runs/4 || failed == 0 {
		t.Errorf("of %d runs %d had a flipped bit, %d failed", runs, flipped, failed)
	}
	if s := run("bf-chunks --claim | bf-dump | bf-load"); s.status() != 0 {
		t.Error(s.errors())
	}
	if got := target.Rows(t, digest+" order by 1"); fmt.Sprint(got) !=
		fmt.Sprint(source.Rows(t, digest+" order by 1")) {
		t.Errorf("in the end: %v", got)
	}
}
