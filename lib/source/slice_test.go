package source

import (
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
)

// TestSelect: each run of blocks of each relation is read by itself, and no name becomes
// anything else.
func TestSelect(t *testing.T) {
	leaf := func(name string, blocks ...task.Blocks) task.Leaf {
		return task.Leaf{Name: task.Name{Schema: "s", Name: name}, Blocks: blocks}
	}
	for _, c := range []struct {
		scan task.Scan
		want string
	}{
		{task.Scan{By: task.ByRange, Relations: []task.Leaf{leaf("m")}},
			`select "a", "b""c" from only "s"."m" where COND`},
		{task.Scan{By: task.ByRange, Relations: []task.Leaf{leaf("m"), leaf(`x"; drop table y; --`)}},
			`select "a", "b""c" from only "s"."m" where COND` +
				` union all select "a", "b""c" from only "s"."x""; drop table y; --" where COND`},
		{task.Scan{By: task.ByBlocks, Relations: []task.Leaf{
			leaf("m", task.Blocks{First: 0, Until: 3}, task.Blocks{First: 9, Until: 4294967295})}},
			`select "a", "b""c" from only "s"."m" where ctid >= '(0,0)'::tid and ctid < '(3,0)'::tid and COND` +
				` union all select "a", "b""c" from only "s"."m" where ctid >= '(9,0)'::tid ` +
				`and ctid < '(4294967295,0)'::tid and COND`},
	} {
		in := &Opened{branches: branches(&c.scan, "COND")}
		if got := in.Select([]string{"a", `b"c`}); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

// TestCounted: only a map knows how many rows there have to be.
func TestCounted(t *testing.T) {
	for _, c := range []struct {
		scan *task.Scan
		rows int64
		bad  bool
	}{
		{nil, 5, false},
		{&task.Scan{By: task.ByRange}, 5, false},
		{&task.Scan{By: task.ByBlocks, Rows: 5}, 5, false},
		{&task.Scan{By: task.ByBlocks, Rows: 5}, 4, true},
		{&task.Scan{By: task.ByBlocks, Rows: 5}, 6, true},
	} {
		err := counted(&task.Task{Kind: task.KindSlice, Scan: c.scan}, c.rows)
		if (err != nil) != c.bad || err != nil && !strings.Contains(pg.Hint(err), "run bf-stage again") {
			t.Errorf("%+v, %d rows: %v", c.scan, c.rows, err)
		}
	}
}
