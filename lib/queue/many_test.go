package queue

import (
	"context"
	"fmt"
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/testdb"
)

// newQueue connects to a database that has the queue from then on.
func newQueue(t *testing.T, db *testdb.DB) *pg.Conn {
	t.Helper()
	c, err := pg.Connect(t.Context(), pg.Target, db.ConnString, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// addTasks adds so many tasks of so many bytes each.
func addTasks(t *testing.T, db *testdb.DB, n, bytes int) {
	t.Helper()
	db.Exec(t, fmt.Sprintf(`insert into __backfill.task (chunk_schema, chunk_name, hypertable_schema, hypertable_name,
            dimensions, filter, est_bytes) select 's', 'c' || i, 's', 'a', '[]', '{"from": "1", "until": "2"}', %d
        from generate_series(1, %d) i`, bytes, n))
}

// TestManyTasks: however many tasks there are, done or of other hypertables, a claim and
// a look at the tasks of a range read few of them.
func TestManyTasks(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, p testdb.Pair) {
		ctx := context.Background()
		db := testdb.New(t, p.Target, "target")
		c := newQueue(t, db)
		const many, each = 32000, 1000
		db.Exec(t, `insert into __backfill.task (chunk_schema, chunk_name, hypertable_schema, hypertable_name,
                dimensions, filter, est_bytes)
            select 's', 'c' || i, 's', case when i <= 16000 then 'a' else 'b' end,
                jsonb_build_array(r), r || '{"partial": false}', 1000000000 - i / 10
            from generate_series(1, 32000) i,
                jsonb_build_object('column', 'time', 'from', (i * 1000)::text, 'until', (i * 1000 + 1000)::text) r`)
		db.Exec(t, "analyze __backfill.task") // as bf-stage does, when nothing is done
		db.Exec(t, "update __backfill.task set worked = tstzrange(now(), now()) where priority between 1 and 12000 "+
			"or priority > 28000")
		db.Exec(t, "vacuum __backfill.task")
		// read is how many tasks f reads.
		read := func(what string, f func() error) {
			t.Helper()
			const reads = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables " +
				"where relid = '__backfill.task'::regclass"
			var before, after int64
			_, err := c.Exec(ctx, "begin")
			if err == nil {
				err = c.QueryRow(ctx, reads).Scan(&before)
			}
			if err == nil {
				err = f()
			}
			if err == nil {
				err = c.QueryRow(ctx, reads).Scan(&after)
			}
			if _, e := c.Exec(ctx, "rollback"); err == nil {
				err = e
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if after-before > each {
				t.Errorf("%s read %d of %d tasks", what, after-before, many)
			}
		}
		for _, order := range []Order{Newest, Oldest, Largest} {
			for _, filter := range []string{"", `^s\.a$`, `^s\.b$`} {
				l, err := NewLane(ctx, c, filter, order)
				if err != nil {
					t.Fatal(err)
				}
				next := func() error {
					e, _, err := l.Next(ctx)
					if err == nil && e == nil {
						t.Fatalf("order %d, filter %s: no task", order, filter)
					}
					return err
				}
				if err := next(); err != nil { // which looks for the filter's first
					t.Fatal(err)
				}
				read("a claim in order "+order.sql()+", filter "+filter, next)
				if _, err := c.Exec(ctx, "select pg_advisory_unlock_all()"); err != nil {
					t.Fatal(err)
				}
			}
		}
		h := task.Name{Schema: "s", Name: "a"}
		read("the tasks of a range", func() error {
			found, err := Beside(ctx, c, &task.Task{Hypertable: h}, 14000_500, 14002_000)
			if len(found) != 2 {
				t.Errorf("%d tasks of a range of two", len(found))
			}
			return err
		})
		read("the tasks of a range that are done", func() error {
			found, err := DoneIn(ctx, c, h, 11999_000, 12002_000)
			if len(found) != 2 {
				t.Errorf("%d tasks of a range of three, of which two are done", len(found))
			}
			return err
		})
	})
}

// TestLaneGoesBack: a lane with a filter looks for tasks where it found the last ones,
// and in the end also before: another lane may have given some back.
func TestLaneGoesBack(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, p testdb.Pair) {
		ctx := context.Background()
		db := testdb.New(t, p.Target, "target")
		var lanes []*Lane
		for _, order := range []Order{Newest, Newest} {
			c := newQueue(t, db)
			if len(lanes) == 0 {
				addTasks(t, db, 2, 1e9)
			}
			l, err := NewLane(ctx, c, "a", order)
			if err != nil {
				t.Fatal(err)
			}
			lanes = append(lanes, l)
		}
		next := func(l *Lane, want int64) {
			t.Helper()
			e, _, err := l.Next(ctx)
			if err != nil || e == nil || e.Task.Task != want {
				t.Fatalf("next %+v, %v, want task %d", e, err, want)
			}
		}
		next(lanes[0], 1)
		next(lanes[1], 2)
		lanes[0].conn.Close()
		for deadline := 0; ; deadline++ {
			e, more, err := lanes[1].Next(ctx)
			if err != nil || !more || deadline > 100000 {
				t.Fatalf("more %t, %v", more, err)
			}
			if e != nil {
				if e.Task.Task != 1 {
					t.Errorf("task %d", e.Task.Task)
				}
				return
			}
		}
	})
}
