package stage

import (
	"math/rand/v2"
	"slices"
	"testing"

	"bf/lib/task"
)

func at(from, until int64) span { return span{From: from, Until: until} }

// TestGrid: extents are the chunks that are there; in the gaps one interval long, at a
// multiple of it, cut at the neighbours; they never overlap and leave nothing out.
func TestGrid(t *testing.T) {
	g := &grid{interval: 100, ends: endsOf("bigint"), chunks: []span{at(-250, -170), at(40, 60), at(60, 300)}}
	for _, c := range []struct {
		v    int64
		want span
	}{
		{-251, at(-300, -250)}, {-250, at(-250, -170)}, {-170, at(-170, -100)}, {-100, at(-100, 0)},
		{-1, at(-100, 0)}, {0, at(0, 40)}, {59, at(40, 60)}, {299, at(60, 300)}, {300, at(300, 400)},
		{task.MaxBound - 1, at(9223372036854775800, task.MaxBound)},
		{task.MinBound, at(task.MinBound, -9223372036854775800)},
	} {
		if got := g.at(c.v); got != c.want {
			t.Errorf("at %d: %v, want %v", c.v, got, c.want)
		}
	}
	small := &grid{interval: 10, ends: endsOf("smallint")}
	if got := small.at(32767); got != at(32760, task.MaxBound) {
		t.Errorf("the end of smallint: %v", got)
	}
	r := rand.New(rand.NewPCG(1, 5))
	for range 500 {
		from := r.Int64N(2000) - 1000
		in := at(from, from+1+r.Int64N(5000))
		most := 1 + r.Int64N(60)
		next := in.From
		for _, p := range g.cut(in, most) {
			if p.From != next || p.Until <= p.From {
				t.Fatalf("%v at most %d: a piece %v after %d", in, most, p, next)
			}
			if e := g.at(p.Until - 1); e.Until != p.Until && p.Until != in.Until {
				t.Fatalf("%v at most %d: a piece %v ends within %v", in, most, p, e)
			}
			next = p.Until
		}
		if next != in.Until {
			t.Fatalf("%v at most %d: ends at %d", in, most, next)
		}
	}
	if n := len(g.cut(at(0, task.MaxBound), 5000)); n > 10000 {
		t.Errorf("all of time in %d pieces", n)
	}
}

// TestJoin: ranges of blocks that touch are one, and no block is lost when there are too
// many of them.
func TestJoin(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 5))
	for range 500 {
		has := map[uint32]bool{}
		var runs []run
		for range 1 + r.IntN(80) {
			first := r.Uint32N(1000)
			until := first + 1 + r.Uint32N(8)
			runs = append(runs, run{First: first, Until: until})
			for b := first; b < until; b++ {
				has[b] = true
			}
		}
		most := 2 + r.IntN(40)
		got := join(slices.Clone(runs), most)
		if len(got) > most {
			t.Fatalf("%d runs, at most %d", len(got), most)
		}
		for i, g := range got {
			if i > 0 && g.First <= got[i-1].Until {
				t.Fatalf("%v touches %v", g, got[i-1])
			}
			for b := g.First; b < g.Until; b++ {
				delete(has, b)
			}
		}
		if len(has) > 0 {
			t.Fatalf("%d blocks are lost", len(has))
		}
	}
}
