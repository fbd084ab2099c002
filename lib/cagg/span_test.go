package cagg

import (
	"slices"
	"testing"
)

// sets of the numbers below 12, as bits, stand for spans.
func spansOf(bits int) (s []span) {
	for i := int64(0); i < 12; i++ {
		if bits>>i&1 == 1 {
			s = append(s, span{From: i, Until: i + 1})
		}
	}
	return s
}

func TestSpans(t *testing.T) {
	for a := 0; a < 1<<12; a += 7 {
		for b := 0; b < 1<<12; b += 31 {
			x, y := merge(spansOf(a)), merge(spansOf(b))
			for name, c := range map[string]struct{ got, want []span }{
				"within":  {within(x, y), merge(spansOf(a & b))},
				"without": {merge(without(x, y)), merge(spansOf(a &^ b))},
				"merge":   {merge(append(spansOf(a), spansOf(b)...)), merge(spansOf(a | b))},
				"clip":    {clip(x, 3, 9), merge(spansOf(a & 0b000111111000))},
			} {
				if !slices.Equal(c.got, c.want) {
					t.Fatalf("%s of %v and %v: got %v, want %v", name, x, y, c.got, c.want)
				}
			}
		}
	}
	if got := merge([]span{{From: 5, Until: 9}, {From: 1, Until: 3}, {From: 4, Until: 4},
		{From: 2, Until: 5}}); !slices.Equal(got, []span{{From: 1, Until: 9}}) {
		t.Errorf("merge: %v", got)
	}
}
