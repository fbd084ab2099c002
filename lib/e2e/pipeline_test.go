package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// pipelines are those of bf(7) and more; each is run on fresh tasks.
var pipelines = []struct{ name, needs, line string }{
	{"xargs -n1", "xargs", `bf-chunks --target "$TARGET" | xargs -r -P8 -d '\n' -n1 sh -c 'bf-dump --source ` +
		`"$SOURCE" "$1" | bf-load --target "$TARGET"' _`},
	{"one lane", "", `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`},
	{"xargs -n50", "xargs", `bf-chunks --target "$TARGET" | xargs -r -P8 -d '\n' -n50 sh -c 'bf-dump --source ` +
		`"$SOURCE" "$@" | bf-load --target "$TARGET"' _`},
	{"xargs -0", "xargs", `bf-chunks --target "$TARGET" -0 | xargs -r -P2 -0 -n5 sh -c 'bf-dump --source "$SOURCE" ` +
		`"$@" | bf-load --target "$TARGET"' _`},
	{"parallel", "parallel", `bf-chunks --target "$TARGET" | parallel --pipe -N20 -j8 'bf-dump --source "$SOURCE" | ` +
		`bf-load --target "$TARGET"'`},
	{"zstd", "", `bf-chunks --target "$TARGET" >tasks.ndjson; ` +
		`bf-dump --source "$SOURCE" --compress zstd <tasks.ndjson | bf-load --target "$TARGET"`},
	{"s2", "", `bf-chunks --target "$TARGET" >tasks.ndjson; ` +
		`bf-dump --source "$SOURCE" --compress s2 <tasks.ndjson | bf-load --target "$TARGET"`},
	{"a file per task", "", `bf-chunks --target "$TARGET" | while read -r task; ` +
		`do bf-dump --source "$SOURCE" "$task" > chunk.bf; bf-load --target "$TARGET" < chunk.bf; done`},
	{"files concatenated", "", `bf-chunks --target "$TARGET" | while read -r task; ` +
		`do bf-dump --source "$SOURCE" "$task" > "chunk$((i=i+1)).bf"; done;
            cat chunk*.bf | bf-load --target "$TARGET"`},
	{"claimed lanes", "", `for i in 1 2 3 4 5 6 7 8; ` +
		`do bf-chunks --target "$TARGET" --claim | bf-dump --source "$SOURCE" | bf-load --target "$TARGET" & done;
            wait`},
}

// TestPipelines runs the pipelines with sh.
func TestPipelines(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		simple(t, p, "h")
		for _, l := range pipelines {
			t.Run(l.name, func(t *testing.T) {
				if l.needs != "" {
					if _, err := exec.LookPath(l.needs); err != nil {
						t.Skip(l.needs + " is not installed")
					}
				}
				if r := p.sh(t, `bf-stage --source "$SOURCE" --target "$TARGET" --until `+
					`'2024-01-09T12:00:00'`); r.status != 0 {
					t.Fatal(r.stderr)
				}
				line := `cd "$(mktemp -d)" && trap 'rm -r "$PWD"' EXIT; ` + l.line
				r := p.sh(t, line)
				if r.status != 0 {
					t.Errorf("exit status %d: %s", r.status, r.stderr)
				}
				if n := strings.Count(r.stdout, `"status":"loaded"`); n != 9 {
					t.Errorf("%d chunks loaded, want 9: %s", n, r.stderr)
				}
				p.same(t, "select * from h where ts < '2024-01-09 12:00'")
				// One chunk again.
				p.dst.Exec(t, "delete from h where ts >= '2024-01-02' and ts < '2024-01-03'")
				one := `bf-chunks --target "$TARGET" --task 8 | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`
				if r := p.sh(t, one); r.status != 0 || !strings.Contains(r.stdout, `"status":"skipped"`) {
					t.Errorf("--task: exit status %d: %s%s", r.status, r.stdout, r.stderr)
				}
				if r := p.sh(t, one+" --force"); r.status != 0 || !strings.Contains(r.stdout, `"status":"loaded"`) {
					t.Errorf("--task with --force: exit status %d: %s%s", r.status, r.stdout, r.stderr)
				}
				p.same(t, "select * from h where ts < '2024-01-09 12:00'")
				// Nothing is pending: nothing is done.
				if r := p.sh(t, line); r.status != 0 && l.name != "files concatenated" ||
					strings.Contains(r.stdout, "loaded") {
					t.Errorf("a second time: exit status %d: %s%s", r.status, r.stdout, r.stderr)
				}
				p.dst.Exec(t, "delete from h")
				p.ok(t, "", "bf-clean", "--target", p.target)
			})
		}
	})
}
