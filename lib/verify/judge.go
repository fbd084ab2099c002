package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
)

// columns are a side's own columns as a summary has them, in name order: their
// order in the table differs between the sides.
func (s *side) columns(of []pg.Column) []Column {
	cols := make([]Column, len(of))
	for i, c := range of {
		cols[i] = Column{Name: c.Name, Type: c.Type, How: c.Hash}
	}
	slices.SortFunc(cols, func(a, b Column) int { return cmp.Compare(a.Name, b.Name) })
	return cols
}

// agree returns the columns to compare, each hashed in a way that both sides
// have, and what already differs. Generated columns are compared where both
// sides have them; what only the target has was not copied.
func agree(from, to *side) (cols []Column, diffs []task.Difference) {
	theirs, copied := map[string]Column{}, map[string]bool{}
	for _, c := range to.columns(to.h.Columns) {
		theirs[c.Name] = c
	}
	for _, c := range from.h.Copied() {
		copied[c.Name] = true
	}
	for _, c := range from.columns(from.h.Columns) {
		o, ok := theirs[c.Name]
		if !ok {
			if copied[c.Name] {
				diffs = append(diffs, task.Difference{What: "type", Column: c.Name, Source: c.Type,
					Target: "no such column"})
			}
			continue
		}
		if !pg.Widens(c.Type, o.Type) {
			diffs = append(diffs, task.Difference{What: "type", Column: c.Name, Source: c.Type, Target: o.Type})
		}
		if o.How != c.How {
			c.How = pg.HashRecord
		}
		cols = append(cols, c)
	}
	return cols, diffs
}

// follow returns the columns of a summary that was made elsewhere, to be
// summarized in the same way here, and what already differs.
func (s *side) follow(ctx context.Context, a *Summary) (cols []Column, diffs []task.Difference, err error) {
	own := s.columns(s.h.Columns)
	if a.Method == ByValue {
		if own, err = s.byEquality(ctx, own); err != nil {
			return nil, nil, err
		}
	}
	mine := map[string]Column{}
	for _, c := range own {
		mine[c.Name] = c
	}
	for _, c := range a.Columns {
		o, ok := mine[c.Name]
		switch {
		case !ok:
			diffs = append(diffs, task.Difference{What: "type", Column: c.Name, Source: c.Type,
				Target: "no such column"})
			continue
		case !pg.Widens(c.Type, o.Type):
			diffs = append(diffs, task.Difference{What: "type", Column: c.Name, Source: c.Type, Target: o.Type})
		}
		if a.Method != BySummary && c.How != o.How && c.How != pg.HashText && c.How != pg.HashRecord {
			return nil, nil, &pg.Error{Side: pg.Target, Object: fmt.Sprintf("%s, column %q", s.h.Label(), c.Name),
				Err:  fmt.Errorf("the summary hashes it as %q, which means something else here", c.How),
				Hint: "make the summary with --method summary, or give --source and --target to one bf-verify"}
		}
		cols = append(cols, Column{Name: c.Name, Type: o.Type, How: c.How})
	}
	return cols, diffs, nil
}

// mostDifferences is how many differences of columns, and how many of rows, a
// verdict tells.
const mostDifferences = 8

// comparison is what there is to judge of a task: the summaries of both sides,
// and how their columns differ.
type comparison struct {
	method         Method
	source, target *Summary
	diffs          []task.Difference
	to             *side // the target
}

// judge gives the verdict.
func (c *comparison) judge(res *task.Result) {
	more, tolerance := compare(c.source, c.target)
	diffs := append(c.diffs, more...)
	res.Rows = c.source.Rows
	switch {
	case len(diffs) == 0:
		res.Status, res.Message = task.Verified, c.equal(tolerance)
		if c.method != BySummary {
			res.Hash = c.source.Hash
		}
	case c.to.gone && c.source.Rows > 0:
		res.Status, res.Message = task.Gone, "gone on the target: the chunk was dropped there"
		diffs = []task.Difference{{What: "rows", Source: strconv.FormatInt(c.source.Rows, 10), Target: "0"}}
	default:
		res.Status, res.Message = task.Differs, "differs: "+diffs[0].String()
		if n := len(diffs) - 1; n > 0 {
			res.Message += fmt.Sprintf(" (and %d more)", n)
		}
		if diffs[0] == rowsHash(c.source, c.target) && haveHashes(c.source.Columns) {
			res.Message += "; each column has the same values on both sides, but in other rows"
		}
	}
	for _, note := range []string{c.source.Note, c.target.Note} {
		if note != "" {
			res.Message += "; " + note
		}
	}
	res.Differences = diffs[:min(len(diffs), mostDifferences)]
}

// equal is the message of a verdict that nothing differs.
func (c *comparison) equal(tolerance float64) string {
	rows := fmt.Sprintf("%d rows", c.source.Rows)
	columns := fmt.Sprintf("; count, min, max and sum of %d columns", len(c.target.Columns))
	switch {
	case c.method == ByRows:
		return "equal: " + rows
	case c.method == ByValue:
		return "equal by value: " + rows
	case tolerance > 0:
		columns += fmt.Sprintf("; sums of floating point within %.1g", tolerance)
	}
	return "equal: " + rows + columns
}

// listRows adds to a verdict the rows that were found to differ.
func listRows(res *task.Result, rows []task.Difference, atLeast int) {
	if atLeast > 0 {
		res.Message += fmt.Sprintf("; rows that differ, by their key: at least %d", atLeast)
	}
	res.Differences = append(res.Differences, rows[:min(len(rows), mostDifferences)]...)
}

// excuse adds to a verdict that the rows that differ are equal by value, and why.
func excuse(res *task.Result, to *side) {
	res.EqualByValue = true
	res.Message += "; only in values that = calls equal"
	if to.compressedChunk != nil {
		res.Message += ": compression on the target keeps one of them for all"
	}
}

func sourceGone(res *task.Result) {
	res.Status, res.Message = task.Gone, "gone on the source: the chunk was dropped there; nothing to compare with"
}

// HashError refuses a summary whose hashes are made in another way than here.
type HashError struct{ Name string }

func (e *HashError) Error() string {
	made := "a version of bf-verify that did not name its hash"
	if e.Name != "" {
		made = fmt.Sprintf("hash %q", e.Name)
	}
	return fmt.Sprintf("the summaries were made with %s, this bf-verify has hash %q: they cannot be compared",
		made, HashName)
}

// Suggest says what to do next.
func (e *HashError) Suggest() string {
	return "make the summaries again: the same version of bf-verify has to run on both sides"
}

// Check refuses a summary that was read from outside and is none, or is one that
// cannot be compared with those of this bf-verify: see HashError.
func (s *Summary) Check() error {
	switch {
	case s.Kind != kind:
		return errors.New(`not a summary of bf-verify --source (no "kind":"summary")`)
	case s.V != task.Version:
		return fmt.Errorf("summary version %d: this bf reads version %d", s.V, task.Version)
	case s.HashName != HashName:
		return &HashError{s.HashName}
	case !s.Method.Known():
		return fmt.Errorf("method %q: this bf knows %s, %s and %s", s.Method, ByRows, ByValue, BySummary)
	case s.State != StateChunk && s.State != StateGone:
		return fmt.Errorf("state %q: this bf knows %s and %s", s.State, StateChunk, StateGone)
	case slices.ContainsFunc(s.Columns, func(c Column) bool { return !c.valid() }):
		return errors.New("a column without name, or hashed in a way this bf does not know")
	}
	return s.Task.Validate()
}

// valid reports whether a column that was read from outside can be one.
func (c *Column) valid() bool {
	return c.Name != "" && !strings.ContainsRune(c.Name, 0) && knowsHash(c.How)
}
