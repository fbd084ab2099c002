package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// unseen says what the target would not do with rows that come compressed, but
// would with rows that come as such; "" for nothing. No constraint is checked
// and no trigger fires for what is written to a compressed relation. What the
// source has enforced itself need not be checked again, but what rows of other
// tables there are is the target's own affair.
func (l *Loader) unseen(ctx context.Context, ht *tsdb.Hypertable, r *relation) (why string, err error) {
	if demand := ht.Stricter(r.Enforced); demand != "" {
		return "only the target demands of its rows: " + demand, nil
	}
	triggers, err := l.db.RowTriggers(ctx, ht, tsdb.OnInsert)
	if err != nil {
		return "", err
	}
	if len(triggers) > 0 {
		return "row triggers of the target have to fire: " + strings.Join(triggers, ", "), nil
	}
	// Rows tell the aggregates of themselves, of batches only TRUNCATE does.
	if aggregated, err := l.db.Aggregated(ctx, ht); err != nil {
		return "", err
	} else if aggregated {
		if key, err := l.db.Referenced(ctx, ht); err != nil || key != nil {
			return "a continuous aggregate would not learn of the rows: TRUNCATE is refused on a table that others reference", err
		}
	}
	if r.keys, why, err = l.keys(ctx, ht); err != nil || why != "" {
		return why, err
	}
	for _, k := range r.keys {
		for _, c := range k.Columns {
			if !slices.Contains(r.Settings.SegmentBy, c) {
				return fmt.Sprintf("foreign key %q cannot be checked: column %q is compressed", k.Name, c), nil
			}
		}
	}
	return "", nil
}

// keys returns the foreign keys of the hypertable, and why the role cannot check
// one of them; "" if it can.
func (l *Loader) keys(ctx context.Context, ht *tsdb.Hypertable) (keys []pg.ForeignKey, why string, err error) {
	if keys, err = l.db.ForeignKeys(ctx, ht.OID); err != nil {
		return nil, "", err
	}
	for _, k := range keys {
		if !k.Allowed {
			var role string
			err := l.db.QueryRow(ctx, "select quote_ident(current_user)").Scan(&role)
			return nil, fmt.Sprintf("foreign key %q cannot be checked; this helps: grant select, update on %s to %s", k.Name, pg.Ident(k.Schema, k.Table), role), err
		}
	}
	return keys, "", nil
}

// refer checks foreign keys of what is in rel, batches or rows, and keeps the
// rows that they name from being deleted before the commit, as the server does.
func (l *Loader) refer(ctx context.Context, tx pgx.Tx, chunk *tsdb.Chunk, rel string, keys []pg.ForeignKey) error {
	for _, k := range keys {
		var columns, some, equal, show []string
		for i, c := range k.Columns {
			c = pg.Ident(c)
			columns, some = append(columns, c), append(some, "b."+c+" is not null")
			equal = append(equal, "k."+pg.Ident(k.Keys[i])+" = b."+c)
			show = append(show, "b."+c+"::text")
		}
		table := pg.Ident(k.Schema, k.Table)
		var lost string
		err := l.asUser(ctx, tx, func() error {
			return tx.QueryRow(ctx, fmt.Sprintf("select concat_ws(', ', %s) from (select distinct %s from only %s) b where %s and not exists (select from %s k where %s for key share of k) limit 1",
				strings.Join(show, ", "), strings.Join(columns, ", "), rel, strings.Join(some, " and "), table, strings.Join(equal, " and "))).Scan(&lost)
		})
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return l.db.Wrap(err, "foreign key %q of chunk %s", k.Name, chunk.Name)
		}
		return &pg.Error{Side: pg.Target, Object: "chunk " + chunk.Name.String(), Err: fmt.Errorf("violates foreign key constraint %q: (%s)=(%s) is not in %s (SQLSTATE 23503)", k.Name, strings.Join(k.Columns, ", "), lost, table),
			Hint: "copy the rows of that table first, then run the task again"}
	}
	return nil
}
