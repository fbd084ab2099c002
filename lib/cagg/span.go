package cagg

import "bf/lib/tsdb"

type span = tsdb.Span

func merge(spans []span) []span  { return tsdb.Merge(spans) }
func within(a, b []span) []span  { return tsdb.Within(a, b) }
func without(a, b []span) []span { return tsdb.Without(a, b) }

// clip returns what of a merged list lies in [from, until).
func clip(a []span, from, until int64) []span { return within(a, []span{{From: from, Until: until}}) }
