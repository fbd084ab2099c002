package queue

import (
	"context"
	"testing"

	"bf/lib/testdb"
)

// TestFewTasks: of few small tasks a lane holds two, and leaves the others to lanes that
// come later.
func TestFewTasks(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, p testdb.Pair) {
		ctx := context.Background()
		db := testdb.New(t, p.Target, "target")
		for lane := range 4 {
			c := newQueue(t, db)
			if lane == 0 {
				addTasks(t, db, 8, 1000)
			}
			l, err := NewLane(ctx, c, "", Newest)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				e, more, err := l.Next(ctx)
				switch {
				case err != nil || !more:
					t.Fatalf("lane %d: more %t, %v", lane, more, err)
				case (e != nil) != (n < 2):
					t.Errorf("lane %d, claim %d: task %v", lane, n, e)
				}
			}
		}
	})
}
