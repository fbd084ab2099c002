package testdb

import "testing"

// Pair is a source and a target on which a test runs.
type Pair struct{ Source, Target Install }

// String names the pair as subtests do.
func (p Pair) String() string {
	if p.Source == p.Target {
		return p.Source.String()
	}
	return p.Source.String() + "-to-" + p.Target.String()
}

// EachVersion runs f as a subtest for every install, with the same version on
// both sides.
func EachVersion(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	for _, in := range Installs(t) {
		p := Pair{in, in}
		t.Run(p.String(), func(t *testing.T) { f(t, p) })
	}
}

// EachFull is EachVersion for the full edition only. Where there is none it
// skips the test.
func EachFull(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	any := false
	for _, in := range Installs(t) {
		if p := (Pair{in, in}); in.Full {
			any = true
			t.Run(p.String(), func(t *testing.T) { f(t, p) })
		}
	}
	if !any {
		t.Skip("needs the full edition of TimescaleDB; only the Apache edition was found")
	}
}

// EachPair runs f as a subtest for every install with itself and for every
// move to a newer TimescaleDB or PostgreSQL, or to the other edition of the
// same version.
func EachPair(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	all := Installs(t)
	for _, source := range all {
		for _, target := range all {
			if older(source, target) <= 0 {
				p := Pair{source, target}
				t.Run(p.String(), func(t *testing.T) { f(t, p) })
			}
		}
	}
}
