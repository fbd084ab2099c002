package e2e

import (
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestNothing backfills where there is nothing to copy: staging says so in one
// line, and everything after it finds nothing to do.
func TestNothing(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		for _, c := range []struct{ name, both, source, want string }{
			{"no hypertables", "create table plain (v int)", "", "the source has no hypertables"},
			{"no chunks", "create table h (ts timestamptz not null); select create_hypertable('h', 'ts')", "",
				"the source has no chunk of 1 hypertable in the range"},
			{"none in the range", "create table h (ts timestamptz not null); select create_hypertable('h', 'ts')",
				"insert into h values ('2030-01-01')",
				"the source has no chunk of 1 hypertable in the range"},
		} {
			t.Run(c.name, func(t *testing.T) {
				p := newPair(t, v)
				p.both(t, c.both)
				if c.source != "" {
					p.src.Exec(t, c.source)
				}
				want := "bf-stage: nothing to do: " + c.want
				for _, line := range []string{
					`bf-stage --source "$SOURCE" --target "$TARGET" --until 2024-01-01`,
					`bf-stage --source "$SOURCE" --quiet --until 2024-01-01 | bf-stage --target "$TARGET"`,
				} {
					if r := p.sh(t, line); r.status != 0 || r.stdout != "" || strings.TrimSpace(r.stderr) != want {
						t.Errorf("%s: exit status %d, %s%s", line, r.status, r.stdout, r.stderr)
					}
					p.ok(t, "", "bf-clean", "--target", p.target)
				}
				wantOutput(t, p.script(t, "backfill", "--until", "2024-01-01"), 0, want,
					"all 0 chunks are copied and verified")
			})
		}
	})
}
