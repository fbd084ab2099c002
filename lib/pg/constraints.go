package pg

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed foreign_keys.sql
	foreignKeysSQL string
	//go:embed enforced.sql
	enforcedSQL string
)

// ForeignKey is a foreign key of a table.
type ForeignKey struct {
	Name          string
	Schema, Table string // that it references
	Columns       []string
	Keys          []string // the columns of Table, in that order
	Allowed       bool     // the role may look the rows of Table up and lock them
}

// ForeignKeys lists the foreign keys of a table.
func (c *Conn) ForeignKeys(ctx context.Context, table uint32) ([]ForeignKey, error) {
	rows, err := c.Query(ctx, foreignKeysSQL, table)
	if err != nil {
		return nil, c.Wrap(err, "foreign keys of table %d", table)
	}
	keys, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (k ForeignKey, err error) {
		err = r.Scan(&k.Name, &k.Schema, &k.Table, &k.Columns, &k.Keys, &k.Allowed)
		return k, err
	})
	return keys, c.Wrap(err, "foreign keys of table %d", table)
}

// Enforced lists what constraints demand of the rows of tables, by OID, so that two
// servers spell the same demand alike.
func (c *Conn) Enforced(ctx context.Context, tables []uint32) (map[uint32][]string, error) {
	rows, err := c.Query(ctx, enforcedSQL, tables)
	if err != nil {
		return nil, c.Wrap(err, "list constraints")
	}
	demands := map[uint32][]string{}
	var oid uint32
	var demand string
	_, err = pgx.ForEachRow(rows, []any{&oid, &demand}, func() error {
		demands[oid] = append(demands[oid], demand)
		return nil
	})
	return demands, c.Wrap(err, "list constraints")
}
