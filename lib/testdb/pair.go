package testdb

import (
	"slices"
	"testing"
)

// Pair is a source and a target on which a test runs.
type Pair struct{ Source, Target Install }

// String names the pair as subtests do.
func (p Pair) String() string {
	if p.Source == p.Target {
		return p.Source.String()
	}
	return p.Source.String() + "-to-" + p.Target.String()
}

// EachVersion runs f as a subtest for every install, with the same one on both
// sides.
func EachVersion(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	each(t, func(p Pair) bool { return p.Source == p.Target }, f)
}

// EachFull is EachVersion for the full edition. Where there is none it skips
// the test.
func EachFull(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	if !each(t, func(p Pair) bool { return p.Source == p.Target && p.Source.Full }, f) {
		t.Skip("needs the full edition of TimescaleDB, and only the Apache edition was found")
	}
}

// EachEdge is EachVersion for the newest and the oldest full edition and one
// Apache: for tests that take long, or that hardly depend on the version.
func EachEdge(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	edges := few(Installs(t))
	each(t, func(p Pair) bool { return p.Source == p.Target && slices.Contains(edges, p.Source) }, f)
}

// EachMove runs f as a subtest for moves between the installs of EachEdge: from
// the oldest to the newest and back, and from one edition to the other and back.
func EachMove(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	edges := few(Installs(t))
	if given != nil || len(edges) == 1 {
		EachPair(t, f)
		return
	}
	for _, source := range edges {
		for _, target := range edges {
			if p := (Pair{source, target}); source != target && (source == edges[0] || target == edges[0]) {
				t.Run(p.String(), func(t *testing.T) { f(t, p) })
			}
		}
	}
}

// EachPair runs f as a subtest for every install with itself, for every move to
// a newer TimescaleDB or PostgreSQL, and for every change of edition.
func EachPair(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	each(t, func(Pair) bool { return true }, f)
}

// each tells whether there was any pair.
func each(t *testing.T, want func(Pair) bool, f func(t *testing.T, p Pair)) (any bool) {
	t.Helper()
	for _, p := range pairs(Installs(t)) {
		// The user's two servers are the only pair, same version or not.
		if given == nil && !want(p) {
			continue
		}
		any = true
		t.Run(p.String(), func(t *testing.T) { f(t, p) })
	}
	return any
}

func pairs(all []Install) (pairs []Pair) {
	if given != nil {
		return []Pair{{all[0], all[len(all)-1]}}
	}
	for _, source := range all {
		for _, target := range all {
			if older(source, target) <= 0 {
				pairs = append(pairs, Pair{source, target})
			}
		}
	}
	return pairs
}
