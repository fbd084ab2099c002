package pg

import (
	"context"
	_ "embed"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed columns.sql
	columnsTemplate string
	//go:embed order.sql
	orderSQL string
	//go:embed type_parts.sql
	typePartsSQL string
)

// WithOrder puts order.sql into a query of columns a, where it says {order}.
func WithOrder(sql string) string { return strings.Replace(sql, "{order}", orderSQL, 1) }

// WithTypeParts puts type_parts.sql into a query, where it says {type parts}.
func WithTypeParts(sql string) string { return strings.Replace(sql, "{type parts}", typePartsSQL, 1) }

var columnsSQL = WithTypeParts(WithOrder(columnsTemplate))

// Column is one column of a relation.
type Column struct {
	Name      string
	Type      string // as format_type() spells it
	NotNull   bool
	Generated bool // computed by the server, never copied
	Default   bool // has a default
	Identity  bool // numbered by the server; chunks do not inherit it, as they do a default
	Collation string
	Binary    bool   // the type can travel in binary COPY
	Hash      string // what of it to hash, one of the constants Hash…
	Order
}

// Order is what decides how the values of a column are sorted; zero where that
// is the same everywhere. See order.sql.
type Order struct {
	Locale  string `json:"locale,omitempty"`
	Version string `json:"locale_version,omitempty"` // of the library, where one is recorded
}

// Same reports whether two columns sort their values alike. Another version of
// the library may sort otherwise: that counts where something relies on the
// order, not where it would only be in the way of every move to another host.
func (o Order) Same(other Order, reliedOn bool) bool {
	return o.Locale == other.Locale && (!reliedOn || o.Version == other.Version || o.Version == "" ||
		other.Version == "")
}

// Spelled is what a message says of it.
func (o Order) Spelled() string {
	if o.Version == "" {
		return o.Locale
	}
	return o.Locale + " (version " + o.Version + ")"
}

// What of a column to hash so that equal hashes mean the same value, whatever
// the server. See columns.sql.
const (
	HashValue  = "value"  // itself
	HashFloat  = "float"  // itself and the sign of zero
	HashBigint = "bigint" // itself and its upper half
	HashText   = "text"   // its cast to text
	HashRecord = "record" // the text of a record of it: a cast to text may lose something, or be the user's
)

// sendFunctions are what else Column.Hash may be: the function whose result is
// hashed, the one by which a binary COPY sends the type.
var sendFunctions = []string{"numeric_send", "time_send", "timetz_send", "timestamp_send", "timestamptz_send",
	"interval_send", "pg_lsn_send", "xid8send", "array_send"}

// Sends reports whether that is the name of a function to send a value by.
func Sends(how string) bool { return slices.Contains(sendFunctions, how) }

// KnowsHash reports whether that is a way to hash a column.
func KnowsHash(how string) bool {
	return slices.Contains([]string{HashValue, HashFloat, HashBigint, HashText, HashRecord}, how) || Sends(how)
}

// Columns lists the columns of relations, by OID.
func (c *Conn) Columns(ctx context.Context, oids ...uint32) (map[uint32][]Column, error) {
	rows, err := c.Query(ctx, columnsSQL, oids)
	if err != nil {
		return nil, c.Wrap(err, "list columns")
	}
	m := map[uint32][]Column{}
	var oid uint32
	var a Column
	_, err = pgx.ForEachRow(rows, []any{&oid, &a.Name, &a.Type, &a.NotNull, &a.Generated, &a.Default, &a.Identity,
		&a.Collation, &a.Locale, &a.Version, &a.Binary, &a.Hash}, func() error {
		m[oid] = append(m[oid], a)
		return nil
	})
	return m, c.Wrap(err, "list columns")
}

// Missing returns the columns that were added to a relation with a default: rows that
// were there before do not hold the value, and mean the default.
func (c *Conn) Missing(ctx context.Context, relation uint32) (names []string, err error) {
	err = c.QueryRow(ctx, `select array(select attname::text from pg_attribute
        where attrelid = $1 and atthasmissing and not attisdropped order by 1)`, relation).Scan(&names)
	return names, c.Wrap(err, "columns added later")
}

// Grown returns those of the relations to which a column was added with a default
// after they were made.
func (c *Conn) Grown(ctx context.Context, relations []uint32) (grown []uint32, err error) {
	err = c.QueryRow(ctx, `select array(select distinct attrelid from pg_attribute
        where attrelid = any($1) and atthasmissing and not attisdropped)`, relations).Scan(&grown)
	return grown, c.Wrap(err, "columns added later")
}

// RelationName returns the quoted name of a relation.
func (c *Conn) RelationName(ctx context.Context, oid uint32) (string, error) {
	var schema, name string
	err := c.QueryRow(ctx, `select n.nspname, c.relname from pg_class c
        join pg_namespace n on n.oid = c.relnamespace where c.oid = $1`, oid).Scan(&schema, &name)
	return Ident(schema, name), c.Wrap(err, "name of relation %d", oid)
}
