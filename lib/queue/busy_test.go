package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestBusy: the time in which at least one task was being copied is what a sweep over
// the beginnings and ends says, however copies overlap, and tasks that are not copied
// do not count.
func TestBusy(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, p testdb.Pair) {
		db := testdb.New(t, p.Target, "target")
		for seed := range uint64(40) {
			r := rand.New(rand.NewPCG(seed, 1))
			var values []string
			var open [1000]bool // seconds in which something was copied
			for range 1 + r.IntN(30) {
				from, long := r.IntN(900), 1+r.IntN(1+r.IntN(90))
				values = append(values, fmt.Sprintf("(tstzrange(to_timestamp(%d), to_timestamp(%d)))", from, from+long))
				for s := from; s < from+long; s++ {
					open[s] = true
				}
			}
			values = slices.Insert(values, r.IntN(len(values)+1), "(null::tstzrange)")
			var want, got float64
			for _, is := range open {
				if is {
					want++
				}
			}
			db.Query1(t, &got, withBusy("select sum(busy)::float8 from (select {busy} as busy from (values "+
				strings.Join(values, ", ")+") v(worked) "+
				"window earlier as (order by lower(worked) rows between unbounded preceding and 1 preceding)) b"))
			if got != want {
				t.Errorf("seed %d: %v seconds, want %v: %s", seed, got, want, values)
			}
		}
	})
}
