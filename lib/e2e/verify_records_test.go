package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"bf/lib/testdb"
	"bf/lib/verify"
)

// TestVerifyRecords is about what is given to bf-verify, by argument and on
// stdin, and about summaries that are kept.
func TestVerifyRecords(t *testing.T) {
	p := newPair(t, testdb.Pair{Source: testdb.Installs(t)[0], Target: testdb.Installs(t)[0]})
	p.fill(t, 3)
	recs := lines(p.chunks(t, "--all"))
	if got := p.verify(t, 0, recs[0], recs[2]); statuses(got) != "[verified:2]" {
		t.Errorf("two records: %s", statuses(got))
	}
	if got := p.verify(t, 0); len(got) != 1 {
		t.Errorf("the rest: %s", statuses(got))
	}
	for _, method := range []string{"rows", "summary"} {
		kept := p.ok(t, strings.Join(recs, "\n"), "bf-verify", "--source", p.source, "--method", method, "-p", "2", "-")
		var s verify.Summary
		if err := json.Unmarshal([]byte(lines(kept)[0]), &s); err != nil || s.Rows != 1440 ||
			s.Method != verify.Method(method) || len(s.Columns) != 5 || s.Columns[0].Max == nil {
			t.Errorf("%v: %s", err, lines(kept)[0])
		}
		r := p.run(t, kept, "bf-verify", "--target", p.target)
		if s := statuses(byChunk(t, r.stdout)); r.status != 0 || s != "[verified:3]" {
			t.Errorf("kept summaries: exit status %d, %s\n%s", r.status, s, r.stderr)
		}
		p.src.Exec(t, "update readings set temp = 0") // no matter: the summary was made before
		r = p.run(t, kept, "bf-verify", "--target", p.target, "-")
		if r.status != 0 {
			t.Errorf("the source has changed since: exit status %d\n%s", r.status, r.stderr)
		}
		p.src.Exec(t, "update readings set temp = sqrt(extract(epoch from time - '2020-01-01 00:00+0') / 60)")
		p.dst.Exec(t, "update readings set temp = temp + 100 where dev = 3")
		r = p.run(t, kept, "bf-verify", "--target", p.target, "-")
		if r.status != 3 || !strings.Contains(r.stdout, `"what":"sum","column":"temp"`) {
			t.Errorf("the target has changed: exit status %d\n%s", r.status, r.stdout)
		}
		p.dst.Exec(t, "update readings set temp = sqrt(extract(epoch from time - '2020-01-01 00:00+0') / 60)")
	}
	// A pending task is passed over.
	p.dst.Exec(t, "update __backfill.task set worked = null, verified = null where priority = 1")
	if got := p.verify(t, 0, recs...); statuses(got) != "[skipped:1 verified:2]" {
		t.Errorf("one is pending: %s", statuses(got))
	}
	// A snapshot that is no longer there.
	p.dst.Exec(t, "update __backfill.task set worked = tstzrange(now(), now(), '[]'), snapshot = '00000003-0000001B-1'")
	for _, r := range p.verify(t, 0, "--all") {
		if !strings.Contains(r.Message, "source as it is now") {
			t.Errorf("message %q does not say what was compared", r.Message)
		}
	}
	stray := strings.Replace(recs[0], `"task":`, `"task":9`, 1)
	for _, c := range []struct {
		stdin  string
		args   []string
		status int
		want   string
	}{
		{"", []string{"--source", p.source, "--target", p.target, "--method", "guess"}, 2, "rows, values or summary"},
		{"", []string{"--source", p.source, "--target", p.target, "--parallelism", "0"}, 2, "--parallelism"},
		{"", []string{"--source", p.source, "--target", p.target, "--all", recs[0]}, 2, "--all"},
		{"", []string{"--source", p.source}, 2, "no task records"},
		{"", []string{}, 2, "--source and --target are required"},
		{"", []string{"--target", p.target, "--method", "rows", "-"}, 2, "--method"},
		{"", []string{"--source", p.target, "--target", p.source}, 1, "no schema __backfill"},
		{"", []string{"--source", p.target, "--target", p.target}, 1, "the same database"},
		{"", []string{"--source", p.source, "--target", p.target, "{"}, 1, "task record"},
		{"", []string{"--source", p.source, "--target", p.target, stray}, 1, "is not staged"},
		{recs[0], []string{"--target", p.target, "-"}, 1, "line 1: not a summary"},
		{`{"v":1,"kind":"summary","method":"rows","state":"chunk"}`, []string{"--target", p.target, "-"}, 1,
			"did not name its hash"},
		{`{"v":1,"kind":"summary","method":"summary","hash_name":"rows-9","state":"gone"}`,
			[]string{"--target", p.target, "-"}, 1,
			`the summaries were made with hash "rows-9"`},
		{`{"v":2,"kind":"summary"}`, []string{"--target", p.target, "-"}, 1, "version 2"},
		{"", []string{"--target", p.target, "-"}, 1, "no summaries on stdin, and no end of them"},
		{"", []string{"--target", p.target}, 1, "no summaries on stdin, and no end of them"},
		{`{"v":1,"kind":"end","summaries":0,"failed":0,"stopped":false}`, []string{"--target", p.target, "-"}, 0,
			"nothing to verify"},
		{`{"v":1,"kind":"end","summaries":0,"failed":2,"stopped":false}`, []string{"--target", p.target, "-"}, 1,
			"could not summarize 2 tasks"},
		{`{"v":1,"kind":"end","summaries":0,"failed":0,"stopped":true}`, []string{"--target", p.target, "-"}, 1,
			"was stopped"},
		{"", []string{"--source", p.source, "--target", p.target, "-"}, 0, "nothing to verify"},
	} {
		r := p.run(t, c.stdin, "bf-verify", c.args...)
		if r.status != c.status || !strings.Contains(r.stderr, c.want) || r.stdout != "" {
			t.Errorf("bf-verify %q: exit status %d, not %d; stderr %q does not say %q; stdout %q", c.args, r.status,
				c.status, r.stderr, c.want, r.stdout)
		}
	}
}

// TestVerifyHalves: the right half of a pipe knows by itself whether the left
// one came to its end.
func TestVerifyHalves(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.fill(t, 3)
	tasks := p.chunks(t, "--done")
	half := func(tasks string) string { return p.ok(t, tasks, "bf-verify", "--source", p.source, "-") }
	all, none := half(tasks), half("")
	l := strings.SplitAfter(all, "\n")
	for _, c := range []struct {
		what, stdin string
		status      int
		equal       int
		want        string
	}{
		{"all", all, 0, 3, "3 equal"},
		{"an empty list", none, 0, 0, "nothing to verify"},
		{"two of them", all + half(lines(tasks)[0]) + none, 0, 4, "4 equal"},
		{"no end", l[0] + l[1] + l[2], 1, 3, "not whole: 3 came, and bf-verify --source vouches for 0"},
		{"one lost", l[0] + l[2] + l[3], 1, 2, "not whole: 2 came, and bf-verify --source vouches for 3"},
		{"one repeated", l[0] + all, 1, 4, "not whole: 4 came, and bf-verify --source vouches for 3"},
		{"cut in a line", all[:len(all)-len(l[3])-10], 1, 2, "not a summary"},
	} {
		r := p.run(t, c.stdin, "bf-verify", "--target", p.target, "-")
		if n := strings.Count(r.stdout, `"status":"verified"`); r.status != c.status || n != c.equal ||
			!strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: exit status %d, want %d; %d equal, want %d\n%s", c.what, r.status, c.status, n,
				c.equal, r.stderr)
		}
	}
	// A task of which there is no summary.
	r := p.run(t, strings.Replace(tasks, `"name":"readings"`, `"name":"reading"`, 1), "bf-verify", "--source",
		p.source, "-")
	if r.status != 1 {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	if r := p.run(t, r.stdout, "bf-verify", "--target", p.target, "-"); r.status != 1 ||
		!strings.Contains(r.stderr, "could not summarize 1 tasks") {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	if r := p.sh(t, `false | bf-verify --target "$TARGET" -`); r.status != 1 {
		t.Errorf("the left side has died: exit status %d\n%s", r.status, r.stderr)
	}
}
