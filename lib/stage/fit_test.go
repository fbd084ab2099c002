package stage

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

func hypertable(name string, columns ...pg.Column) *tsdb.Hypertable {
	return &tsdb.Hypertable{Name: task.Name{Schema: "s", Name: name}, Columns: columns,
		Dimensions: []tsdb.Dimension{{Column: "t", Type: "timestamp with time zone",
			RangeType: "timestamp with time zone", Interval: 10}}}
}

// TestColumnDifferences: what would make a copy fail or lose something.
func TestColumnDifferences(t *testing.T) {
	col := func(change func(*pg.Column)) pg.Column {
		c := pg.Column{Name: "v", Type: "integer"}
		change(&c)
		return c
	}
	plain := col(func(*pg.Column) {})
	generated := col(func(c *pg.Column) { c.Generated = true })
	for _, c := range []struct {
		name           string
		source, target []pg.Column
		want           string // "" for no difference
	}{
		{"the same", []pg.Column{plain}, []pg.Column{plain}, ""},
		{"missing", []pg.Column{plain}, nil, `column "v" does not exist there`},
		{"generated, missing", []pg.Column{generated}, nil, ""},
		{"another type", []pg.Column{plain}, []pg.Column{col(func(c *pg.Column) {
			c.Type = "bigint"
		})}, `has type integer on the source, bigint on the target`},
		{"generated on the source", []pg.Column{generated}, []pg.Column{plain},
			"generated on the source, ordinary on the target"},
		{"generated on the target", []pg.Column{plain}, []pg.Column{generated},
			"ordinary on the source, generated on the target"},
		{"generated on both", []pg.Column{generated}, []pg.Column{generated}, ""},
		{"more on the target", nil, []pg.Column{plain}, ""},
		{"not null on the target", nil, []pg.Column{col(func(c *pg.Column) {
			c.NotNull = true
		})}, "exists only on the target, is not null and has no default"},
		{"with a default", nil, []pg.Column{col(func(c *pg.Column) { c.NotNull, c.Default = true, true })}, ""},
		{"another collation", []pg.Column{plain}, []pg.Column{col(func(c *pg.Column) { c.Collation = "C" })}, ""},
	} {
		got := columnDifferences(hypertable("h", c.source...), hypertable("h", c.target...))
		if len(got) > 1 || (len(got) == 0) != (c.want == "") || !strings.Contains(strings.Join(got, ""), c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestDimensionDifferences: other partitions are worth a note, other hashes and
// another primary dimension are not copied.
func TestDimensionDifferences(t *testing.T) {
	hash := func(partitions int, fn string) tsdb.Dimension {
		return tsdb.Dimension{Column: "d", Type: "integer", RangeType: "integer", Partitions: partitions,
			Func: task.Name{Schema: "f", Name: fn}}
	}
	const std = "get_partition_hash"
	with := func(primary string, more ...tsdb.Dimension) *tsdb.Hypertable {
		h := hypertable("h")
		h.Dimensions[0].Column = primary
		h.Dimensions = append(h.Dimensions, more...)
		return h
	}
	for _, c := range []struct {
		name           string
		source, target *tsdb.Hypertable
		diff, note     string
	}{
		{"the same", with("t", hash(2, std)), with("t", hash(2, std)), "", ""},
		{"another primary dimension", with("t"), with("u"), "the primary dimension is", ""},
		{"other partitions", with("t", hash(2, std)), with("t", hash(3, std)), "", `dimension "d" differs`},
		{"only here", with("t", hash(2, std)), with("t"), "", `dimension "d" differs`},
		{"only there", with("t"), with("t", hash(2, std)), "", `dimension "d" exists only on the target`},
		{"another hash", with("t", hash(2, "mine")), with("t", hash(2, std)), "hashed by another function", ""},
	} {
		diffs, notes := dimensionDifferences(c.source, c.target)
		for what, x := range map[string]struct {
			got  []string
			want string
		}{"differences": {diffs, c.diff}, "notes": {notes, c.note}} {
			if (len(x.got) == 0) != (x.want == "") || !strings.Contains(strings.Join(x.got, ""), x.want) {
				t.Errorf("%s: %s %q, want %q", c.name, what, x.got, x.want)
			}
		}
	}
}

// TestOrder: aggregates come before what they are computed from, and within each level
// the newest chunks first, whatever the order they are found in.
func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	view := func(n string) *task.Name { return &task.Name{Schema: "v", Name: n} }
	hs := []*tsdb.Hypertable{
		{ID: 1, Name: task.Name{Schema: "s", Name: "raw"}}, {ID: 2, Name: task.Name{Schema: "s", Name: "other"}},
		{ID: 3, Name: task.Name{Schema: "i", Name: "m3"}, View: view("hourly"), Raw: 1},
		{ID: 4, Name: task.Name{Schema: "i", Name: "m4"}, View: view("daily"), Raw: 3},
	}
	level := []int{0, 0, 1, 2}
	for range 200 {
		var tasks []*task.Task
		for range r.IntN(20) {
			h := hs[r.IntN(len(hs))]
			from := fmt.Sprint(r.IntN(5))
			tasks = append(tasks, &task.Task{Hypertable: h.Name,
				Slices: []task.Slice{{Column: "t", From: from}, {Column: "d", From: fmt.Sprint(r.IntN(2))}},
				Range:  task.Range{From: from}})
		}
		order(hs, tasks)
		for i := 1; i < len(tasks); i++ {
			of := func(t *task.Task) int {
				return level[slices.IndexFunc(hs, func(h *tsdb.Hypertable) bool { return h.Name == t.Hypertable })]
			}
			a, b := tasks[i-1], tasks[i]
			if of(a) < of(b) || of(a) == of(b) && a.Range.From < b.Range.From {
				t.Fatalf("%s from %s before %s from %s", a.Hypertable, a.Range.From, b.Hypertable, b.Range.From)
			}
		}
	}
}

// TestShare: the share of a chunk that is staged.
func TestShare(t *testing.T) {
	for _, c := range []struct {
		from, until string
		want        float64
	}{{"0", "100", 1}, {"0", "50", 0.5}, {"75", "100", 0.25}} {
		tk := &task.Task{Slices: []task.Slice{{Column: "t", From: "0", Until: "100"}},
			Range: task.Range{From: c.from, Until: c.until}}
		if got := shareOf(tk); got != c.want {
			t.Errorf("[%s, %s): %g, want %g", c.from, c.until, got, c.want)
		}
	}
}
