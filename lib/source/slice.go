package source

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

//go:embed slice.sql
var sliceSQL string

// A slice is the rows of a relation without TimescaleDB that fill one chunk of the
// target. That a relation, or a partition of it, is missing says nothing about
// retention: it is an error, and never ErrGone.

// enterSlice is Enter for a slice. The lock is the first statement, as for a chunk; what
// cannot be locked (foreign tables, materialized views) has no rewrite to be kept away.
func enterSlice(ctx context.Context, db *tsdb.DB, t *task.Task) (*Opened, error) {
	before, err := leavesOf(ctx, db, t)
	if err != nil {
		return nil, err
	}
	if err := missing(t, before); err != nil {
		return nil, err
	}
	if err := beginSlice(ctx, db, t, before); err != nil {
		return nil, err
	}
	leaves, err := leavesOf(ctx, db, t)
	if err != nil {
		return nil, err
	}
	if err := missing(t, leaves); err != nil {
		return nil, err
	}
	h, err := db.PlainRelation(ctx, t.Hypertable, t.Range.Column)
	if err != nil {
		return nil, err
	}
	if h == nil {
		return nil, restage(t, "is a hypertable, or gone, since it was staged")
	}
	if err := unchanged(t, leaves[1:]); err != nil {
		return nil, err
	}
	listed := t.Scan.By == task.ByRange || t.Scan.Until != "" // not by an older bf-stage, of blocks
	if listed && (h.Relkind == tsdb.Table || h.Relkind == tsdb.Partitioned) {
		if err := noMore(ctx, db, h, t); err != nil {
			return nil, err
		}
	}
	if h.Relkind == tsdb.View { // its functions may rely on the search_path of role and database
		if _, err := db.Exec(ctx, "set local search_path to default"); err != nil {
			return nil, err
		}
	}
	cond, err := h.RangeCondition(db, t)
	return &Opened{Hypertable: h, branches: branches(t.Scan, cond)}, err
}

// leaf is a relation of a slice as it is now.
type leaf struct {
	Relkind   string // "" if there is none of its name
	Below     bool   // it is the slice's relation, or a partition or child of it
	Filenode  string
	Rewritten bool // after the snapshot was taken
}

// leavesOf returns the slice's relation and those that it is read from, by place in the
// record.
func leavesOf(ctx context.Context, db *tsdb.DB, t *task.Task) ([]leaf, error) {
	var schemas, names []string
	for _, l := range t.Scan.Relations {
		schemas, names = append(schemas, l.Schema), append(names, l.Name.Name)
	}
	rows, err := db.Query(ctx, sliceSQL, t.Hypertable.Schema, t.Hypertable.Name, schemas, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[leaf])
}

// beginSlice opens the transaction and locks the relations. Plans that read what the
// slice does not need are for when there is no other.
func beginSlice(ctx context.Context, db *tsdb.DB, t *task.Task, leaves []leaf) error {
	names := []string{pg.Ident(t.Hypertable.Schema, t.Hypertable.Name)}
	for _, l := range t.Scan.Relations {
		names = append(names, pg.Ident(l.Schema, l.Name.Name))
	}
	var lockable []string
	for i, l := range leaves {
		switch only := "only " + names[i]; {
		case i > 0 && names[i] == names[0], l.Relkind == tsdb.Foreign, l.Relkind == tsdb.MatView:
		case l.Relkind == tsdb.View:
			lockable = append(lockable, names[i])
		default:
			lockable = append(lockable, only)
		}
	}
	sql := "set local enable_seqscan = off; set local jit = off"
	if len(lockable) > 0 {
		sql = "lock table " + strings.Join(lockable, ", ") + " in access share mode; " + sql
	}
	err := beginIn(ctx, db, t, sql)
	if code := pg.Code(err); code == pg.UndefinedTable || code == pg.UndefinedSchema {
		return restage(t, "was dropped, or a partition of it, since it was staged")
	}
	return err
}

// missing refuses a slice whose relations are not what they were.
func missing(t *task.Task, leaves []leaf) error {
	if leaves[0].Relkind == "" {
		return restage(t, "is not there any more")
	}
	for i, l := range leaves[1:] {
		name := t.Scan.Relations[i].Name
		switch {
		case l.Relkind == "":
			return restage(t, "%s is not there any more", name)
		case !l.Below:
			return restage(t, "%s is no partition or child of it any more", name)
		}
	}
	return nil
}

// unchanged refuses relations that were rewritten: blocks are not where they were, and a
// snapshot that is older reads nothing.
func unchanged(t *task.Task, leaves []leaf) error {
	for i, l := range leaves {
		r := t.Scan.Relations[i]
		switch {
		case t.Scan.By == task.ByBlocks && l.Filenode != r.Filenode:
			return restage(t, "%s was rewritten since its blocks were mapped (VACUUM FULL, CLUSTER, TRUNCATE)", r.Name)
		case t.Snapshot != "" && l.Rewritten:
			return &pg.Error{Side: pg.Source, Object: t.String(),
				Err:  fmt.Errorf("%w: %s was rewritten after it was taken", ErrSnapshot, r.Name),
				Hint: "run bf-stage again with a new snapshot, or without one"}
		}
	}
	return nil
}

// noMore refuses a relation that has a partition or child that may hold rows of the
// range and is not staged: it was attached since. The planner says which may.
func noMore(ctx context.Context, db *tsdb.DB, h *tsdb.Hypertable, t *task.Task) error {
	cond, err := h.RangeCondition(db, t)
	if err != nil {
		return err
	}
	leaves, _, err := tsdb.Scanned(ctx, db, h, cond)
	if err != nil {
		return err
	}
	for _, name := range leaves {
		if !slices.ContainsFunc(t.Scan.Relations, func(l task.Leaf) bool { return l.Name == name }) &&
			!slices.Contains(t.Scan.Empty, name) {
			return restage(t, "%s is a partition or child of it since it was staged, and may hold rows of the range",
				name)
		}
	}
	return nil
}

// restage is a slice that is not what it was when it was staged.
func restage(t *task.Task, format string, args ...any) error {
	return &pg.Error{Side: pg.Source, Object: t.String(), Err: fmt.Errorf(format, args...),
		Hint: "run bf-stage again"}
}

// branches are FROM clauses of the relations of a scan, one for each run of blocks: the
// server reads such a run alone if nothing else is said of ctid.
func branches(s *task.Scan, cond string) (all []string) {
	for _, l := range s.Relations {
		from := "only " + pg.Ident(l.Schema, l.Name.Name) + " where "
		if s.By == task.ByRange {
			all = append(all, from+cond)
		}
		for _, b := range l.Blocks {
			all = append(all, fmt.Sprintf("%sctid >= '(%d,0)'::tid and ctid < '(%d,0)'::tid and %s", from, b.First,
				b.Until, cond))
		}
	}
	return all
}

// Select is the query for columns (quoted) of the slice's rows.
func (o *Opened) Select(columns []string) string {
	list := pg.Idents(columns)
	each := make([]string, len(o.branches))
	for i, from := range o.branches {
		each[i] = "select " + list + " from " + from
	}
	return strings.Join(each, " union all ")
}

// copySlice copies the rows of a slice. Its size is what bf-stage has estimated.
func copySlice(o *Opened, t *task.Task) copyOut {
	out := copyFrom(o.Hypertable, "")
	var names []string
	for _, c := range out.part.Columns {
		names = append(names, c.Name)
	}
	out.part.Bytes = t.Bytes
	out.sql = fmt.Sprintf("copy (%s) to stdout (format %s)", o.Select(names), out.part.Format)
	return out
}

// counted refuses a slice with more or fewer rows than were counted in its blocks: rows
// have moved, and some may be in blocks that are not read.
func counted(t *task.Task, rows int64) error {
	if t.Scan == nil || t.Scan.By != task.ByBlocks || rows == t.Scan.Rows {
		return nil
	}
	return &pg.Error{Side: pg.Source, Object: t.String(), Hint: "run bf-stage again",
		Err: fmt.Errorf("%w: %d rows in its blocks, %d when it was staged", errMoved, rows, t.Scan.Rows)}
}

var errMoved = errors.New("rows were changed since their blocks were mapped")
