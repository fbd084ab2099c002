package cagg

import (
	"cmp"
	"slices"

	"bf/lib/tsdb"
)

type span = tsdb.Span

// merge sorts spans and joins those that touch.
func merge(spans []span) []span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.From, b.From) })
	var out []span
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

// within returns what two merged lists have in common.
func within(a, b []span) (out []span) {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if s := (span{From: max(a[i].From, b[j].From), Until: min(a[i].Until, b[j].Until)}); s.From < s.Until {
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

// without returns what of a merged list is not in another.
func without(a, b []span) (out []span) {
	for _, s := range a {
		for _, c := range b {
			if c.Until <= s.From || c.From >= s.Until {
				continue
			}
			if s.From < c.From {
				out = append(out, span{From: s.From, Until: c.From})
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

// clip returns what of a merged list lies in [from, until).
func clip(a []span, from, until int64) []span { return within(a, []span{{From: from, Until: until}}) }
