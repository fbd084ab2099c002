package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestDoneOfAll: the lines of bf-load say how many chunks are done of how many,
// by whatever process, and not what number the task has.
func TestDoneOfAll(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.stage(t, "--until", "2025-01-01")
	p.dst.Exec(t, "delete from __backfill.task where priority <= 4") // as tasks that are retired
	recs := lines(p.chunks(t))
	said := func(want int, recs []string, args ...string) {
		t.Helper()
		r := p.run(t, p.dump(t, strings.Join(recs, "\n")), "bf-load", append([]string{"--target", p.target}, args...)...)
		if r.status != 0 {
			t.Fatal(r.stderr)
		}
		for _, l := range lines(r.stderr) {
			if !regexp.MustCompile(fmt.Sprintf(`^bf-load: %d/6 public\.h _hyper_`, want)).MatchString(l) {
				t.Errorf("%q, want %d/6", l, want)
			}
			want = min(want+1, 6)
		}
	}
	said(1, recs[:2])
	said(2, recs[1:2], "--force")
	said(3, recs[2:])
	said(6, recs[5:])
}
