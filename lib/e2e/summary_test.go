package e2e

import (
	"regexp"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestProgress: the table of bf-chunks --summary and the line of --watch.
func TestProgress(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, readings)
		p.both(t, "create table other (time int not null); "+
			"select create_hypertable('other', 'time', chunk_time_interval => 10)")
		p.src.Exec(t, `insert into readings select '2020-01-01 00:00+0'::timestamptz + i * interval '1 hour', 1
            from generate_series(0, 24 * 6 - 1) i;
            insert into other select i from generate_series(0, 19) i`)
		p.stage(t, "--until", "2021-01-01", "--filter", "readings")
		p.stage(t, "--until", "100", "--filter", "other")
		summary := func(args ...string) string {
			return regexp.MustCompile(`"(bytes|bytes_done|rate|seconds_left)":[^,}]*,?`).ReplaceAllString(p.chunks(t,
				append(args, "--summary", "--json")...), "")
		}
		want := func(when, got string, rows ...string) {
			t.Helper()
			if got = strings.ReplaceAll(got, ",}", "}"); got != strings.Join(rows, "\n")+"\n" {
				t.Errorf("%s:\n%s", when, got)
			}
		}
		const other, reads = `{"v":1,"hypertable":{"schema":"public","name":"other"},`,
			`{"v":1,"hypertable":{"schema":"public","name":"readings"},`
		want("staged", summary(), other+`"total":2,"done":0,"pending":2,"failed":0,"verified":0,"unequal":0}`,
			reads+`"total":6,"done":0,"pending":6,"failed":0,"verified":0,"unequal":0}`,
			`{"v":1,"total":8,"done":0,"pending":8,"failed":0,"verified":0,"unequal":0}`)
		recs := lines(p.chunks(t, "--filter", "readings"))
		p.load(t, p.dump(t, strings.Join(recs[:4], "\n")))
		p.verify(t, 0, recs[0], recs[1])
		p.dst.Exec(t, "delete from readings where time < '2020-01-04'::timestamptz")
		p.verify(t, 3, recs[3])
		p.dst.Exec(t, "update __backfill.task set failed = now() where priority = 5")
		want("some are done", summary("--filter", "READ"),
			reads+`"total":6,"done":4,"pending":2,"failed":1,"verified":2,"unequal":1}`,
			`{"v":1,"total":6,"done":4,"pending":2,"failed":1,"verified":2,"unequal":1}`)
		table := p.chunks(t, "--summary")
		for _, re := range []string{`(?m)^hypertable +chunks +pending +failed +verified +unequal +bytes +rate +left$`,
			`(?m)^public.readings +4/6 +2 +1 +2 +1 +\S+ kB +\S+ .B/s +\ds$`,
			`(?m)^public.other +0/2 +2 +0 +0 +0 +0 B/\S+ kB +- +\ds$`, `(?m)^total +4/8 +4 `, `(?m)^0 at work$`} {
			if !regexp.MustCompile(re).MatchString(table) {
				t.Errorf("no line %s in\n%s", re, table)
			}
		}
		pictured(t, "bf-chunks", "The summary", table)
		// --watch ends by itself when all is done: a line each time.
		watch := p.command(t, "bf-chunks", "--target", p.target, "--watch", "--every", "0.1")
		var out strings.Builder
		watch.Stdout = &out
		if err := watch.Start(); err != nil {
			t.Fatal(err)
		}
		p.copy(t)
		if err := watch.Wait(); err != nil {
			t.Error(err)
		}
		ls := lines(out.String())
		if last := ls[len(ls)-1]; !regexp.MustCompile(`^\d\d:\d\d:\d\d 8/8 chunks, (\S+)/(\S+) kB, \S+ .B/s; ` +
			`0 failed, 2 verified, 1 unequal; 0 at work$`).MatchString(last) {
			t.Errorf("the last line is %q", last)
		}
		// The statement of bf-records(5).
		if got := p.dst.Rows(t, "select count(*), count(worked), count(verified) "+
			"from __backfill.task"); strings.Join(got[0], " ") != "8 8 2" {
			t.Errorf("by SQL: %v", got)
		}
		for _, args := range [][]string{{"--json"}, {"--summary", "--all"}, {"--watch", "--every", "0"}} {
			if r := p.run(t, "", "bf-chunks", append(args, "--target", p.target)...); r.status != 2 || r.stdout != "" {
				t.Errorf("bf-chunks %q: exit status %d, %s", args, r.status, r.stderr)
			}
		}
	})
}
