package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

// unite adds the files of staged tasks to planned ones of the same slices: a slice is
// replaced as a whole by the rows of all its files. Of a file that is in the plan, the plan
// knows best. Where it cannot be told which blocks of the staged files have the rows, because the
// range or the grid is another one, all files must be in the plan.
func unite(ctx context.Context, tx pgx.Tx, plan []*task.Task) error {
	now := map[string]bool{} // files of the plan
	var schemas, names []string
	for _, t := range plan {
		if t.Kind == task.KindCSV {
			for _, f := range t.Scan.Files {
				now[f.Path] = true
			}
			to := t.Target()
			schemas, names = append(schemas, to.Schema), append(names, to.Name)
		}
	}
	if len(now) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, listSQL+" where kind = 'csv' and ("+labelSchema+", "+labelName+
		") in (select * from unnest($1::text[], $2::text[]))", schemas, names)
	if err != nil {
		return err
	}
	staged, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return err
	}
	for _, s := range staged {
		for _, t := range plan {
			if t.Kind == task.KindCSV && t.Target() == s.Target() && overlap(t, &s.Task) {
				if err := join(t, &s.Task, now); err != nil {
					return &pg.Error{Side: pg.Target, Object: s.Task.String(), Err: err,
						Hint: "stage all files of it at once, below one directory, " +
							"or end that backfill with bf-clean first"}
				}
			}
		}
	}
	return nil
}

func overlap(a, b *task.Task) bool {
	lo, hi := a.Range.Bounds()
	from, until := b.Range.Bounds()
	return lo < until && from < hi
}

// all reports whether all of these files are among those, as they are: their directory was moved.
func all(files, among []task.File) bool {
	return !slices.ContainsFunc(files, func(f task.File) bool {
		return !slices.ContainsFunc(among, func(g task.File) bool {
			return f.Path == g.Path && f.Codec == g.Codec && slices.Equal(f.Blocks, g.Blocks)
		})
	})
}

// join adds the files of a staged task to a planned one that has rows of the same range.
func join(t, staged *task.Task, now map[string]bool) error {
	besides := slices.IndexFunc(staged.Scan.Files, func(f task.File) bool { return !now[f.Path] })
	lo, hi := t.Range.Bounds()
	from, until := staged.Range.Bounds()
	extent := t.Slices[0] == staged.Slices[0]
	switch {
	case t.Origin != staged.Origin && !all(staged.Scan.Files, t.Scan.Files):
		return fmt.Errorf("is staged from another directory, %s", staged.Origin)
	case extent && (lo > from || hi < until):
		return fmt.Errorf("is staged with more than %s", &t.Range)
	case besides < 0:
		return nil
	case !extent || lo != from || hi != until:
		return fmt.Errorf("is staged with another range than %s, and with %s besides", &t.Range,
			staged.Scan.Files[besides].Path)
	case !slices.Equal(t.Scan.Columns, staged.Scan.Columns) || t.Scan.Dialect != staged.Scan.Dialect:
		return errors.New("is staged with other columns, or another dialect")
	}
	files := t.Scan.Files
	t.Scan.Files, t.Scan.Rows = nil, 0
	for _, f := range staged.Scan.Files { // in their order: so that the same files are no change
		if i := slices.IndexFunc(files, func(g task.File) bool { return g.Path == f.Path }); i >= 0 {
			f = files[i]
			files = slices.Delete(files, i, i+1)
		} else if now[f.Path] {
			continue // it has no rows here any more
		}
		t.Scan.Files = append(t.Scan.Files, f)
	}
	t.Scan.Files = append(t.Scan.Files, files...)
	for i, f := range t.Scan.Files {
		t.Scan.Rows += f.Rows
		for _, g := range t.Scan.Files[:i] {
			if slices.Equal(f.Blocks, g.Blocks) {
				return fmt.Errorf("is staged with %s, which has the same rows as %s", g.Path, f.Path)
			}
		}
	}
	t.Rows, t.Bytes = t.Scan.Rows, max(t.Bytes, staged.Bytes)
	return nil
}
