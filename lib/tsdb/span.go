package tsdb

import (
	"cmp"
	"slices"

	"bf/lib/task"
)

// Span is a range of internal values, From inclusive, Until exclusive.
type Span struct{ From, Until int64 }

// of is the same as a range of a column.
func (s Span) of(column string) task.Range {
	return task.NewRange(column, s.From, s.Until)
}

// Merge sorts spans and joins those that touch.
func Merge(spans []Span) []Span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	var out []Span
	for _, s := range spans {
		switch n := len(out); {
		case s.From >= s.Until:
		case n > 0 && s.From <= out[n-1].Until:
			out[n-1].Until = max(out[n-1].Until, s.Until)
		default:
			out = append(out, s)
		}
	}
	return out
}

// Within returns what two merged lists have in common.
func Within(a, b []Span) (out []Span) {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if s := (Span{From: max(a[i].From, b[j].From), Until: min(a[i].Until, b[j].Until)}); s.From < s.Until {
			out = append(out, s)
		}
		if a[i].Until < b[j].Until {
			i++
		} else {
			j++
		}
	}
	return out
}

// Without returns what of a merged list is not in another.
func Without(a, b []Span) (out []Span) {
	for _, s := range a {
		for _, c := range b {
			if c.Until <= s.From || c.From >= s.Until {
				continue
			}
			if s.From < c.From {
				out = append(out, Span{From: s.From, Until: c.From})
			}
			if s.From = c.Until; s.From >= s.Until {
				break
			}
		}
		if s.From < s.Until {
			out = append(out, s)
		}
	}
	return out
}
