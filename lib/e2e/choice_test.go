package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
)

// newestFull returns the newest full edition.
func newestFull(t testing.TB) testdb.Pair {
	t.Helper()
	for _, v := range testdb.Installs(t) {
		if v.Full {
			return testdb.Pair{Source: v, Target: v}
		}
	}
	t.Skip("needs the full edition of TimescaleDB, and only the Apache edition was found")
	panic("unreachable")
}

// TestCascades stages and refreshes with the cascades: the union of what depends
// on a match and of what a match depends on. Package tsdb tests the definition
// on generated graphs.
func TestCascades(t *testing.T) {
	p := newPair(t, newestFull(t))
	p.both(t, `create table metrics (ts timestamptz not null, v int); select create_hypertable('metrics', 'ts')`)
	for view, from := range map[string]string{"cagg": "metrics", "cagg2": "metrics"} {
		p.both(t, aggregate(view, from))
	}
	for _, view := range []string{"hcagg", "hcagg2"} {
		p.both(t, aggregate(view, "cagg"))
	}
	p.src.Exec(t, "insert into metrics select '2024-01-01'::timestamptz + n * interval '1 hour', n "+
		"from generate_series(0, 99) n")
	for _, view := range []string{"cagg", "cagg2", "hcagg", "hcagg2"} {
		p.src.Exec(t, "call refresh_continuous_aggregate('"+view+"', null, null)")
	}
	for _, c := range []struct{ args, want string }{
		{"", "cagg"},
		{"-U", "cagg hcagg hcagg2"},
		{"-D", "cagg metrics"},
		{"-U -D", "cagg hcagg hcagg2 metrics"},
	} {
		args := append([]string{"--filter", `^public\.cagg$`}, strings.Fields(c.args)...)
		plan := p.ok(t, "", "bf-stage", append([]string{"--source", p.source, "--until", "2025-01-01"}, args...)...)
		var staged []string
		for _, l := range lines(plan) {
			if r, err := task.Parse([]byte(l)); err == nil && !strings.Contains(l, `"kind"`) {
				staged = append(staged, r.Target().Name)
			}
		}
		slices.Sort(staged)
		if got := strings.Join(slices.Compact(staged), " "); got != c.want {
			t.Errorf("bf-stage %s: %s, want %s", c.args, got, c.want)
		}
		p.stage(t, "--until", "2025-01-01", "--filter", "metrics") // raw rows: every aggregate has to be computed
		p.copy(t)
		out := p.ok(t, "", "bf-caggs", append([]string{"--source", p.source, "--target", p.target, "--dry-run"},
			args...)...)
		var refreshed []string
		for _, m := range regexp.MustCompile(`"aggregate":\{"schema":"public",`+
			`"name":"(\w+)"`).FindAllStringSubmatch(out, -1) {
			refreshed = append(refreshed, m[1])
		}
		slices.Sort(refreshed)
		if got, want := strings.Join(slices.Compact(refreshed), " "),
			strings.TrimSuffix(c.want, " metrics"); got != want {
			t.Errorf("bf-caggs %s: %s, want %s", c.args, got, want)
		}
	}
}

func aggregate(view, from string) string {
	time := "ts"
	if from != "metrics" {
		time = "b"
	}
	return fmt.Sprintf(`create materialized view %s
        with (timescaledb.continuous, timescaledb.materialized_only = false) as
		select time_bucket('1 day', %s) as b, sum(v) as v from %s group by 1 with no data`, view, time, from)
}

// TestFilterSpelling: a filter finds a name as people write it and as SQL quotes
// it, wherever one is taken; and what the message offers when nothing matches
// can be pasted into a shell.
func TestFilterSpelling(t *testing.T) {
	p := newPair(t, newestFull(t))
	names := []string{`caggs"_T1`, `Ümlaut`, `a.b`, `it's`, `a$b`, `(x|y)*`, `back\slash`, `two  words`, `[a]{2}^+?`,
		`order`, "plain"}
	p.both(t, "create table metrics (ts timestamptz not null, v int); select create_hypertable('metrics', 'ts')")
	p.src.Exec(t, "insert into metrics values ('2024-01-01', 1)")
	for _, n := range names {
		view := pgx.Identifier{n}.Sanitize()
		p.both(t, aggregate(view, "metrics"))
		p.src.Exec(t, "call refresh_continuous_aggregate('public."+strings.ReplaceAll(view, "'", "''")+"', null, null)")
	}
	p.stage(t, "--until", "2025-01-01")

	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	// chosen runs the three commands that take a filter, with an argument as a
	// shell reads it, and returns the one label that each of them chooses.
	chosen := func(arg string) []string {
		t.Helper()
		var labels []string
		for _, line := range []string{
			`bf-stage --source "$SOURCE" --until 2025-01-01 --filter ` + arg,
			`bf-chunks --target "$TARGET" --all --filter ` + arg,
		} {
			r := p.sh(t, line)
			if r.status != 0 {
				t.Fatalf("%s: exit status %d: %s", line, r.status, r.stderr)
			}
			for _, l := range lines(r.stdout) {
				if rec, err := task.Parse([]byte(l)); err == nil && !strings.Contains(l, `"kind"`) {
					labels = append(labels, rec.Target().String())
				}
			}
		}
		r := p.sh(t, `bf-caggs --source "$SOURCE" --target "$TARGET" --verbose --dry-run --filter `+arg)
		if r.status != 0 {
			t.Fatalf("bf-caggs --filter %s: exit status %d: %s", arg, r.status, r.stderr)
		}
		slices.Sort(labels)
		return slices.Compact(labels)
	}
	for _, n := range names {
		want := []string{"public." + n}
		var spelled string
		p.src.Query1(t, &spelled, "select format('%I.%I', 'public', $1::text)", n)
		for _, s := range []string{"public." + n, spelled} {
			arg := quote("^" + regexp.QuoteMeta(s) + "$")
			if got := chosen(arg); !slices.Equal(got, want) {
				t.Errorf("--filter %s chooses %q, want %q", arg, got, want)
			}
		}
	}
	for _, line := range []string{
		`bf-stage --source "$SOURCE" --until 2025-01-01 --filter nothing`,
		`bf-caggs --target "$TARGET" --filter nothing`,
		`bf-chunks --target "$TARGET" --filter nothing`,
	} {
		r := p.sh(t, line)
		_, there, found := strings.Cut(strings.TrimSpace(r.stderr), "there are: ")
		if !found {
			t.Errorf("%s: %s", line, r.stderr)
			continue
		}
		for _, n := range names {
			pattern := task.Name{Schema: "public", Name: n}.Pattern()
			if !strings.Contains(there, pattern) {
				t.Errorf("%s: no %s in %s", line, pattern, there)
			}
		}
	}
	for _, n := range names {
		name := task.Name{Schema: "public", Name: n}
		if got := chosen(name.Pattern()); !slices.Contains(got, name.String()) {
			t.Errorf("--filter %s chooses %q, want %q", name.Pattern(), got, name)
		}
	}
}
