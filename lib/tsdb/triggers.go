package tsdb

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Referenced returns the columns of a key by which another table references the
// hypertable; nil if none does.
func (db *DB) Referenced(ctx context.Context, h *Hypertable) (key []string, err error) {
	// By their triggers: there is no index on what a constraint references.
	err = db.QueryRow(ctx, `select (
            select array(select a.attname::text from unnest(c.confkey) k join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k)
            from pg_trigger g join pg_constraint c on c.oid = g.tgconstraint
            where g.tgrelid = $1 and c.confrelid = $1 and c.contype = 'f' limit 1)`, h.OID).Scan(&key)
	return key, db.Wrap(err, "foreign keys to %s", h.Name)
}

// The events of triggers, as bits of pg_trigger.tgtype.
const (
	OnInsert = 4
	OnDelete = 8
)

// RowTriggers lists the users' row triggers of a hypertable for an event, or one
// of several: those on INSERT fire on a COPY into its chunks. The trigger that logs
// invalidations of continuous aggregates (up to 2.22) and the one that keeps rows
// out of the root are TimescaleDB's own.
func (db *DB) RowTriggers(ctx context.Context, h *Hypertable, event int) ([]string, error) {
	rows, err := db.Query(ctx, `select tgname from pg_trigger
        where tgrelid = $1 and not tgisinternal and tgtype & 1 = 1 and tgtype & $2 <> 0 and tgenabled in ('O', 'A')
          and tgname not in ('ts_insert_blocker', 'ts_cagg_invalidation_trigger') order by 1`, h.OID, event)
	if err != nil {
		return nil, db.Wrap(err, "triggers of %s", h.Name)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, db.Wrap(err, "triggers of %s", h.Name)
}
