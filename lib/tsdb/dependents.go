package tsdb

import (
	"context"
	_ "embed"
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
	err = db.QueryRow(ctx, dependentsSQL, h.OID, h.ID).Scan(&d.OnInsert, &d.OnDelete, &d.Aggregated, &d.ReferencedKey)
	return d, db.Wrap(err, "triggers, aggregates and keys of %s", h.Name)
}
