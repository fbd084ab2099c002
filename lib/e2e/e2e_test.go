// Package e2e tests the tools as their users run them: real binaries, real
// servers, whole pipelines.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bf/lib/task"
	"bf/lib/testdb"
)

// patience bounds every command of a test.
const patience = 2 * time.Minute

// pair is a source and a target database and the connection strings that the
// tools get for them.
type pair struct {
	src, dst *testdb.DB
	// Connection strings; superusers' unless a test changes them.
	source, target string
}

func newPair(t testing.TB, p testdb.Pair) *pair {
	t.Helper()
	src, dst := testdb.New(t, p.Source, "source"), testdb.New(t, p.Target, "target")
	return &pair{src, dst, src.ConnString, dst.ConnString}
}

// both runs SQL on both sides.
func (p *pair) both(t testing.TB, sql string) {
	t.Helper()
	p.src.Exec(t, sql)
	p.dst.Exec(t, sql)
}

// result is what a command left behind.
type result struct {
	stdout, stderr string
	status         int
}

// command prepares one of the tools, or sh, with the tools in PATH and the two
// sides in SOURCE and TARGET.
func (p *pair) command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	bin := testdb.Bin(t) // builds them the first time, which is not to count
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	if strings.HasPrefix(name, "bf-") {
		name = filepath.Join(bin, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	if p != nil {
		cmd.Env = append(cmd.Env, "SOURCE="+p.source, "TARGET="+p.target)
	}
	return cmd
}

// environ is ours without what would tell the tools where to go.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "BF_")
	})
}

func (p *pair) run(t testing.TB, stdin, name string, args ...string) result {
	t.Helper()
	cmd := p.command(t, name, args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v", name, e)
	}
	return result{out.String(), err.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed and returns its stdout.
func (p *pair) ok(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	r := p.run(t, stdin, name, args...)
	if r.status != 0 {
		t.Fatalf("%s %q: exit status %d\n%s", name, args, r.status, r.stderr)
	}
	return r.stdout
}

func (p *pair) stage(t testing.TB, args ...string) []*task.Task {
	t.Helper()
	return records(t, p.ok(t, "", "bf-stage", append([]string{"--source", p.source, "--target", p.target}, args...)...))
}

func (p *pair) chunks(t testing.TB, args ...string) string {
	t.Helper()
	return p.ok(t, "", "bf-chunks", append([]string{"--target", p.target}, args...)...)
}

func (p *pair) dump(t testing.TB, recs string, args ...string) string {
	t.Helper()
	return p.ok(t, recs, "bf-dump", append([]string{"--source", p.source}, args...)...)
}

func (p *pair) load(t testing.TB, stream string, args ...string) []*task.Result {
	t.Helper()
	return results(t, p.ok(t, stream, "bf-load", append([]string{"--target", p.target}, args...)...))
}

// copy loads everything that is pending.
func (p *pair) copy(t testing.TB) []*task.Result {
	t.Helper()
	return p.load(t, p.dump(t, p.chunks(t)))
}

// sh runs a command line and returns what it left behind.
func (p *pair) sh(t testing.TB, line string) result {
	t.Helper()
	return p.run(t, "", "sh", "-c", line)
}

func lines(s string) []string {
	s = strings.TrimSuffix(s, "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func records(t testing.TB, out string) []*task.Task {
	t.Helper()
	var ts []*task.Task
	for _, l := range lines(out) {
		r, err := task.Parse([]byte(l))
		if err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		ts = append(ts, r)
	}
	return ts
}

func results(t testing.TB, out string) []*task.Result {
	t.Helper()
	var rs []*task.Result
	for _, l := range lines(out) {
		var r task.Result
		if err := json.Unmarshal([]byte(l), &r); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		rs = append(rs, &r)
	}
	return rs
}

// sorted returns the rows of a query, each as one string, in an order that does
// not depend on the server.
func sorted(t testing.TB, db *testdb.DB, query string) []string {
	t.Helper()
	var out []string
	for _, r := range db.Rows(t, query) {
		out = append(out, strings.Join(r, "|"))
	}
	slices.Sort(out)
	return out
}

// same fails the test unless a query gives the same rows on both sides, and at
// least one.
func (p *pair) same(t testing.TB, query string) {
	t.Helper()
	a, b := sorted(t, p.src, query), sorted(t, p.dst, query)
	if len(a) == 0 {
		t.Errorf("%s: no rows on the source", query)
	}
	diff(t, query, a, b)
}

func diff(t testing.TB, what string, want, got []string) {
	t.Helper()
	if slices.Equal(want, got) {
		return
	}
	only := func(a, b []string) (o []string) {
		for _, x := range a {
			if !slices.Contains(b, x) && len(o) < 5 {
				o = append(o, x)
			}
		}
		return o
	}
	t.Errorf("%s: %d rows wanted, %d found; missing %q, too many %q", what, len(want), len(got), only(want, got),
		only(got, want))
}

func sortedStrings(s []string) []string {
	slices.Sort(s)
	return s
}
