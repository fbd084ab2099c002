package tsdb

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"bf/lib/task"
)

// TestCascade compares the cascades with their definition, on generated
// forests of hypertables, aggregates and aggregates on aggregates.
func TestCascade(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 3000 {
		n := 1 + r.IntN(9)
		all := make([]*Hypertable, n)
		dependsOn := make([][]bool, n) // transitively
		for i := range all {
			name := fmt.Sprintf("h%d", i)
			all[i] = &Hypertable{ID: int32(100 + i), Name: task.Name{Schema: "s", Name: name}}
			dependsOn[i] = make([]bool, n)
			if parent := r.IntN(i+1) - 1; parent >= 0 && r.IntN(4) > 0 {
				all[i].View, all[i].Raw = &task.Name{Schema: "v", Name: name}, all[parent].ID
				for j := range n {
					dependsOn[i][j] = j == parent || dependsOn[parent][j]
				}
			}
		}
		matched, isMatch := map[int32]bool{}, make([]bool, n)
		for i := range all {
			if isMatch[i] = r.IntN(3) == 0; isMatch[i] {
				matched[all[i].ID] = true
			}
		}
		shuffled := slices.Clone(all)
		r.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for _, up := range []bool{false, true} {
			for _, down := range []bool{false, true} {
				want := map[*Hypertable]bool{}
				for i := range all {
					for j := range all {
						if isMatch[j] && (i == j || up && dependsOn[i][j] || down && dependsOn[j][i]) {
							want[all[i]] = true
						}
					}
				}
				got := pick(shuffled, cascade(shuffled, matched, up, down))
				for i, h := range got {
					for _, later := range got[i+1:] {
						if h.View != nil && h.Raw == later.ID {
							t.Errorf("round %d: %s comes before %s", round, h.Name, later.Name)
						}
					}
					if !want[h] {
						t.Errorf("round %d, up=%t, down=%t: %s is picked", round, up, down, h.Name)
					}
				}
				if len(got) != len(want) {
					t.Errorf("round %d, up=%t, down=%t: %d picked, want %d", round, up, down, len(got), len(want))
				}
			}
		}
		if t.Failed() {
			for i, h := range all {
				t.Logf("%s: on %d, match %t", h.Name, h.Raw-100, isMatch[i])
			}
			return
		}
	}
}
