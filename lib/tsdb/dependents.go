package tsdb

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"
)

//go:embed dependents.sql
var dependentsSQL string

// Dependents are what a change of a hypertable's rows affects: triggers, a
// continuous aggregate, foreign keys.
type Dependents struct {
	OnInsert, OnDelete []string // the users' row triggers
	Aggregated         bool     // a continuous aggregate is on it
	ReferencedKey      []string // the columns of a key that another table references; nil for none
}

// Dependents looks them up.
func (h *Hypertable) Dependents(ctx context.Context, db *DB) (d Dependents, err error) {
	var ask pgx.Batch
	AskDependents(&ask, h, &d)
	return d, db.Wrap(db.SendBatch(ctx, &ask).Close(), "triggers, aggregates and keys of %s", h.Name)
}

// AskDependents asks for them.
func AskDependents(ask *pgx.Batch, h *Hypertable, d *Dependents) {
	ask.Queue(dependentsSQL, h.OID, h.ID).QueryRow(func(r pgx.Row) error {
		*d = Dependents{}
		return r.Scan(&d.OnInsert, &d.OnDelete, &d.Aggregated, &d.ReferencedKey)
	})
}
