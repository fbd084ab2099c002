package stage

import (
	"cmp"
	"context"
	"fmt"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// survey finds out which slices of a relation have rows, and how a task reads its own.
//
// A task reads by range where an index finds the rows, or where partitions and
// constraints leave little else to read. Without that, twenty tasks would read a table
// twenty times; so its rows are counted once, by blocks and slices, and each task reads
// the blocks that hold its rows.
type survey struct {
	*plain
	src *tsdb.DB
	o   Options

	slices []*slice // with rows, in order
	out    int64    // rows that are in no range
	by     string   // task.ByRange or task.ByBlocks
	notes  []string
}

// slice is a piece of the grid with rows, clipped to what is staged.
type slice struct {
	span
	extent span
	rows   int64
	bytes  int64
	leaves []task.Name
	runs   map[task.Name][]run // of its rows, by blocks
}

func (s *survey) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// tasks are those of the relation.
func (s *survey) tasks(ctx context.Context) ([]*task.Task, error) {
	found, err := s.indexed(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case found == "btree":
		err = s.walk(ctx)
	default:
		err = s.count(ctx)
	}
	if err != nil {
		return nil, err
	}
	if s.out > 0 {
		if err := s.outside(); err != nil {
			return nil, err
		}
	}
	if err := s.choose(ctx, found); err != nil {
		return nil, err
	}
	tasks := make([]*task.Task, len(s.slices))
	for i, sl := range s.slices {
		tasks[i] = s.task(sl)
	}
	return tasks, spell(ctx, s.o.Target, s.into, tasks)
}

// task is the record of a slice.
func (s *survey) task(sl *slice) *task.Task {
	t := sliceTask(s.into, sl.extent, sl.span)
	t.Kind, t.Hypertable, t.Chunk = task.KindSlice, s.Name, s.Name
	t.Origin, t.LSN, t.Snapshot, t.Bytes, t.Rows = s.src.Origin, s.src.LSN, s.o.Snapshot, sl.bytes, sl.rows
	t.Scan = &task.Scan{By: s.by,
		Columnstore: s.o.Columnstore && s.into.CompressionEnabled && sl.span == sl.extent}
	if s.into.Name != s.Name {
		t.Into = &s.into.Name
	}
	for _, l := range sl.leaves {
		t.Scan.Relations = append(t.Scan.Relations, task.Leaf{Name: l})
	}
	if s.by == task.ByBlocks {
		t.Scan.Rows, t.Scan.Relations = sl.rows, s.blocks(sl)
		t.Scan.From, t.Scan.Until = task.FormatBound(s.lo), task.FormatBound(s.hi)
		for _, name := range sl.leaves {
			if len(sl.runs[name]) == 0 {
				t.Scan.Empty = append(t.Scan.Empty, name)
			}
		}
	}
	return t
}

// indexed says how all rows of a range are found: "btree", "brin", or "" for not by an
// index. What lies behind a foreign table is its server's business.
func (s *survey) indexed(ctx context.Context) (string, error) {
	switch s.Relkind {
	case tsdb.Foreign:
		return "btree", nil
	case tsdb.View:
		// Through a view, the plan tells.
		ok, err := tsdb.Finds(ctx, s.src, s.Hypertable, span{From: s.hi - 1, Until: s.hi})
		if !ok {
			return "", err
		}
		return "btree", err
	}
	by, err := tsdb.Indexed(ctx, s.src, s.Hypertable, s.leaves)
	if err != nil {
		return "", err
	}
	found := "btree"
	for _, l := range s.leaves {
		method := by[l.OID]
		switch {
		case l.Blocks == 0 && l.Relkind != tsdb.Foreign || method == "btree" || l.Relkind == tsdb.Foreign:
		case method == "brin":
			found = "brin"
		default:
			return "", nil
		}
	}
	return found, nil
}

// walk finds the slices with rows from one to the next, through an index on the column.
func (s *survey) walk(ctx context.Context) (err error) {
	for from := max(s.lo, s.Lowest()); from < s.hi; {
		v, ok, err := tsdb.Part{}.Earliest(ctx, s.src, s.Hypertable, from, s.hi)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		sl := s.slice(v)
		s.slices = append(s.slices, sl)
		from = sl.Until
	}
	s.out, err = tsdb.Outside(ctx, s.src, s.Hypertable, s.lo)
	return err
}

// slice is the piece of the grid that holds a value.
func (s *survey) slice(v int64) *slice {
	extent := s.grid.at(v)
	return &slice{extent: extent, span: span{From: max(extent.From, s.lo), Until: min(extent.Until, s.hi)}}
}

// outside refuses rows that no range holds, or tells of them.
func (s *survey) outside() error {
	column := s.into.Dimensions[0].Column
	if s.o.SkipNull {
		s.note("%s: %d rows have no time (%q is NULL or -infinity) and are not copied", s.Name, s.out, column)
		return nil
	}
	return &pg.Error{Side: s.src.Side, Object: s.Name.String(),
		Err: fmt.Errorf("%d rows have no time (%q is NULL or -infinity), and a hypertable takes no such row",
			s.out, column),
		Hint: "give them a time or delete them; --skip-null-times leaves them behind"}
}

const (
	// How many times all tasks together may read a relation: beyond the first number it
	// is said, beyond the second refused.
	timesUnsaid = 3
	timesAtMost = 10
	// What has no more blocks is read in no time, however often.
	fewBlocks = 1024
)

// choose decides how the tasks read, and refuses what would read too much.
func (s *survey) choose(ctx context.Context, found string) error {
	if err := s.scanned(ctx); err != nil {
		return err
	}
	s.by = task.ByRange
	if found != "" {
		return nil
	}
	p := s.byRange()
	if p > timesUnsaid && s.mappable() == nil {
		s.by, p = task.ByBlocks, s.byBlocks()
	}
	times := fmt.Sprintf("%.1f times", p)
	switch {
	case p <= timesUnsaid || blocksOf(s.leaves) <= fewBlocks && s.Relkind != tsdb.View:
	case p <= timesAtMost || s.o.Any:
		s.note("%s: all tasks together will read it %s: its rows are not in the order of %q", s.Name, times,
			s.into.Dimensions[0].Column)
	default:
		return &pg.Error{Side: s.src.Side, Object: s.Name.String(),
			Err:  fmt.Errorf("%d tasks would read it %s, as no index finds the rows of a range", len(s.slices), times),
			Hint: s.helps()}
	}
	return nil
}

// scanned finds the leaves that may hold the rows of each slice, and what is expected
// of it where nothing was counted.
func (s *survey) scanned(ctx context.Context) error {
	counted := s.counted()
	for _, sl := range s.slices {
		condition, err := s.Hypertable.RangeCondition(s.src, &task.Task{
			Range: task.NewRange(s.into.Dimensions[0].Column, sl.From, sl.Until)})
		if err != nil {
			return err
		}
		var expected int64
		if sl.leaves, expected, err = tsdb.Scanned(ctx, s.src, s.Hypertable, condition); err != nil {
			return err
		}
		sl.rows = cmp.Or(sl.rows, expected)
	}
	known := counted > 0
	if !known {
		var err error
		if known, err = s.src.HasStatistics(ctx, s.Hypertable, s.leaves); err != nil {
			return err
		}
	}
	s.share(known)
	return nil
}

// share says how many bytes each slice has, by its rows. Where they are not known, as
// nobody has analyzed the table, each has as many as the others: by its guess, of a
// two-hundredth of the table for any range, the planner would expect next to nothing.
func (s *survey) share(known bool) {
	total, bytes := s.totals()
	n := int64(max(len(s.slices), 1))
	for _, sl := range s.slices {
		switch {
		case !known:
			sl.rows, sl.bytes = max(sl.rows, total/n), bytes/n
		case total > 0:
			sl.bytes = int64(float64(bytes) * float64(sl.rows) / float64(total))
		}
	}
}

// counted are the rows of all slices.
func (s *survey) counted() (rows int64) {
	for _, sl := range s.slices {
		rows += sl.rows
	}
	return rows
}

// totals are the rows and the bytes of the relation, TOAST included: as counted, or as
// the planner believes.
func (s *survey) totals() (rows, bytes int64) {
	for _, l := range s.leaves {
		rows, bytes = rows+l.Rows, bytes+l.Bytes
	}
	return max(rows, s.counted()), bytes
}

// byRange is how many times all tasks together read the relation if each reads the
// leaves that may hold its rows.
func (s *survey) byRange() float64 {
	size := map[task.Name]int64{}
	var read int64
	for _, l := range s.leaves {
		size[l.Name] = l.Blocks
	}
	all := blocksOf(s.leaves)
	if all == 0 {
		return float64(len(s.slices))
	}
	for _, sl := range s.slices {
		for _, l := range sl.leaves {
			read += size[l]
		}
	}
	return float64(read) / float64(all)
}

// blocksOf is their size in blocks.
func blocksOf(leaves []*tsdb.Leaf) (blocks int64) {
	for _, l := range leaves {
		blocks += l.Blocks
	}
	return blocks
}

// helps says what helps against too much reading.
func (s *survey) helps() string {
	any := "; --scan any copies it all the same"
	column := pg.Ident(s.into.Dimensions[0].Column)
	if s.Relkind == tsdb.View {
		return fmt.Sprintf("an index on what the view shows as %s, or stage the table behind it%s", column, any)
	}
	if why := s.mappable(); why != nil {
		any = "; " + why.Error() + any
	}
	on := pg.Ident(s.Name.Schema, s.Name.Name)
	if s.by == task.ByRange && len(s.leaves) > 0 {
		l := s.leaves[0].Name
		on = pg.Ident(l.Schema, l.Name)
		return fmt.Sprintf("create index concurrently on %s using brin (%s) on the source, "+
			"if its rows are in the order "+
			"of time, else using btree; or larger chunks on the target%s", on, column, any)
	}
	return fmt.Sprintf("create index concurrently on %s (%s) on the source; or larger chunks on the target%s",
		on, column, any)
}

// mappable says why the leaves cannot be read by blocks; nil if they can.
func (s *survey) mappable() error {
	if s.src.Postgres < 140000 {
		return fmt.Errorf("PostgreSQL %d is not read by blocks: from 14 on, a server finds some without all others",
			s.src.Postgres/10000)
	}
	for _, l := range s.leaves {
		if l.AM != "heap" {
			return fmt.Errorf("%s is no ordinary table", l.Name)
		}
	}
	return nil
}
