package testdb

import (
	"fmt"
	"os"
	"slices"
	"strings"
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
	edges := edges(Installs(t))
	each(t, func(p Pair) bool { return p.Source == p.Target && slices.Contains(edges, p.Source) }, f)
}

// EachMove runs f as a subtest for moves between the installs of EachEdge: from
// the oldest to the newest and back, and from one edition to the other and back.
func EachMove(t *testing.T, f func(t *testing.T, p Pair)) {
	t.Helper()
	edges := few(Installs(t))
	if given != nil || matrix() != "" || len(edges) == 1 {
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
	all, err := chosen(Installs(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		// The user's two servers are the only pair, same version or not.
		if given == nil && !want(p) {
			continue
		}
		any = true
		t.Run(p.String(), func(t *testing.T) { f(t, p) })
	}
	if !any && matrix() != "" {
		t.Skipf("BF_TEST_MATRIX=%s: none of these pairs is one for this test", matrix())
	}
	return any
}

// matrix is BF_TEST_MATRIX: "all", or names of pairs.
func matrix() string { return os.Getenv("BF_TEST_MATRIX") }

// edges are the installs of EachEdge.
func edges(all []Install) []Install {
	if matrix() != "" {
		return all
	}
	return few(all)
}

// chosen are the pairs that there are, or those that BF_TEST_MATRIX names.
func chosen(all []Install) ([]Pair, error) {
	if given != nil || matrix() == "" || matrix() == "all" {
		return pairs(all), nil
	}
	byName := map[string]Install{}
	for _, in := range all {
		byName[in.String()] = in
	}
	var named []Pair
	for _, name := range strings.Split(matrix(), ",") {
		source, target, moves := strings.Cut(name, "-to-")
		if !moves {
			target = source
		}
		p := Pair{byName[source], byName[target]}
		if p.Source.BinDir == "" || p.Target.BinDir == "" {
			return nil, fmt.Errorf("BF_TEST_MATRIX=%s: %q is no pair of %v", matrix(), name, all)
		}
		named = append(named, p)
	}
	return named, nil
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
