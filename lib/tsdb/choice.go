package tsdb

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

// Choice says which hypertables and continuous aggregates a command works on.
type Choice struct {
	Filter string // regular expression on the label, see pg.NameMatches; "" for all
	Up     bool   // also the aggregates that depend on a match
	Down   bool   // also what a match depends on
}

// Choose returns the chosen ones of all hypertables, parents before the
// aggregates on them. The error has the code pg.InvalidRegexp for a filter that
// is no regular expression.
func Choose(ctx context.Context, db *DB, all []*Hypertable, c Choice) ([]*Hypertable, error) {
	if c.Filter == "" {
		return pick(all, func(*Hypertable) bool { return true }), nil
	}
	matched, err := matching(ctx, db, all, c.Filter)
	if err != nil {
		return nil, err
	}
	if len(matched) == 0 {
		labels := make([]task.Name, len(all))
		for i, h := range all {
			labels[i] = h.Label()
		}
		hint := "there are: " + task.Patterns(labels)
		if len(all) == 0 {
			hint = fmt.Sprintf("database %q has no hypertables: check the connection string", db.Config().Database)
		}
		return nil, &pg.Error{Side: db.Side, Hint: hint,
			Err: fmt.Errorf("no hypertable or continuous aggregate matches --filter %q", c.Filter)}
	}
	return pick(all, cascade(all, matched, c.Up, c.Down)), nil
}

// matching returns the ids of the hypertables whose label matches the filter.
func matching(ctx context.Context, db *DB, all []*Hypertable, filter string) (map[int32]bool, error) {
	var schemas, names []string
	for _, h := range all {
		schemas, names = append(schemas, h.Label().Schema), append(names, h.Label().Name)
	}
	rows, err := db.Query(ctx, `select i from unnest($1::text[], $2::text[]) with ordinality as u(schema, name, i)
        where `+pg.NameMatches("schema", "name", "$3"), schemas, names, filter)
	if err != nil {
		return nil, db.Wrap(err, "match --filter")
	}
	matches, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	matched := map[int32]bool{}
	for _, i := range matches {
		matched[all[i-1].ID] = true
	}
	return matched, db.Wrap(err, "--filter %q", filter)
}

// cascade tells what to pick: the matched hypertables; with up also the aggregates that
// depend on a match; with down also what a match depends on. An aggregate that depends
// only on what was picked by going down is not picked.
func cascade(all []*Hypertable, matched map[int32]bool, up, down bool) func(*Hypertable) bool {
	picked := map[int32]bool{}
	for _, h := range all {
		ancestors := ancestorsOf(all, h)
		isMatch := func(a *Hypertable) bool { return matched[a.ID] }
		if matched[h.ID] || up && slices.ContainsFunc(ancestors, isMatch) {
			picked[h.ID] = true
		}
		if matched[h.ID] && down {
			for _, a := range ancestors {
				picked[a.ID] = true
			}
		}
	}
	return func(h *Hypertable) bool { return picked[h.ID] }
}

// Affected returns the hypertables and all aggregates that depend on them,
// parents first: what changes when rows of the hypertables do.
func Affected(all, hs []*Hypertable) []*Hypertable {
	matched := map[int32]bool{}
	for _, h := range hs {
		matched[h.ID] = true
	}
	return pick(all, cascade(all, matched, true, false))
}

// Counterpart returns the hypertable of the other side: for a continuous
// aggregate the one behind the view of that name, because ids and names of
// materialization hypertables differ between databases. It is nil if there is
// none.
func Counterpart(all []*Hypertable, name task.Name, view *task.Name) *Hypertable {
	for _, h := range all {
		switch {
		case view != nil && h.View != nil && *h.View == *view:
			return h
		case view == nil && h.View == nil && h.Name == name:
			return h
		}
	}
	return nil
}

// pick returns the picked hypertables, parents before the aggregates on them.
func pick(all []*Hypertable, picked func(*Hypertable) bool) []*Hypertable {
	chosen := slices.DeleteFunc(slices.Clone(all), func(h *Hypertable) bool { return !picked(h) })
	level := Levels(all)
	slices.SortStableFunc(chosen, func(a, b *Hypertable) int { return cmp.Compare(level[a.ID], level[b.ID]) })
	return chosen
}

// Levels says of each hypertable, by its id, how many aggregates of the list it
// stands on, itself included: 0 for one that is no aggregate.
func Levels(hs []*Hypertable) map[int32]int {
	levels := map[int32]int{}
	for _, h := range hs {
		for _, a := range append(ancestorsOf(hs, h), h) {
			if a.View != nil {
				levels[h.ID]++
			}
		}
	}
	return levels
}

// ancestorsOf returns what an aggregate depends on, nearest first.
func ancestorsOf(all []*Hypertable, h *Hypertable) (ancestors []*Hypertable) {
	for h != nil && h.View != nil {
		i := slices.IndexFunc(all, func(p *Hypertable) bool { return p.ID == h.Raw })
		if i < 0 {
			break
		}
		h = all[i]
		ancestors = append(ancestors, h)
	}
	return ancestors
}
