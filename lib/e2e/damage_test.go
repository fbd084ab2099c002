package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestDamagedStreams gives bf-load a stream that was cut, or of which a bit was
// flipped, here and there. (Package stream tests every place.)
func TestDamagedStreams(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.dst.Exec(t, "insert into h values ('2024-01-01 00:00', -1), ('2024-01-02 00:00', -1)")
	p.stage(t, "--until", "2024-01-02")
	before := sorted(t, p.dst, "select * from h")
	whole := p.dump(t, p.chunks(t))
	refused := func(what string, at int, s string) {
		t.Helper()
		r := p.run(t, s, "bf-load", "--target", p.target)
		if why := wrong("bf-load", r.stdout, r.stderr); r.status != 1 || why != "" {
			t.Errorf("%s at %d: exit status %d, %s: %s", what, at, r.status, why, r.stderr)
		}
		var worked int
		p.dst.Query1(t, &worked, "select count(worked) from __backfill.task")
		if worked != 0 {
			t.Fatalf("%s at %d: the task counts as done", what, at)
		}
		diff(t, what, before, sorted(t, p.dst, "select * from h"))
	}
	end := strings.LastIndex(whole, "\x89bf") // of the stream: here the task is whole
	for range 12 {
		at := rand.IntN(end)
		refused("cut", at, whole[:at])
	}
	for range 12 {
		at := rand.IntN(end)
		b := []byte(whole)
		b[at] ^= 1 << rand.IntN(8)
		refused("flipped", at, string(b))
	}
	p.load(t, whole)
	p.same(t, "select * from h where ts < '2024-01-02'")
}
