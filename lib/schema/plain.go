package schema

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

//go:embed table.sql
var tableSQL string

// plain is a table that is to become a hypertable: TABLE=COLUMN[,INTERVAL].
type plain struct {
	oid        uint32
	name       task.Name
	quoted     string // its name, by the source's server
	column     string
	typ        string // of the column
	interval   int64  // in TimescaleDB's units
	partitions string // what the table is partitioned by; "" for a table that is not
	children   []uint32
	keys       []key // that lack the column
	references []key // foreign keys to the table; the columns are the tables that have them
	ruleOIDs   []uint32
	rules      []string
	triggers   []string // on INSERT, BEFORE and FOR EACH ROW
}

// key is a unique key or an exclusion constraint.
type key struct {
	Class   uint32   `json:"class"`
	OID     uint32   `json:"oid"`
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Columns []string `json:"columns"`
}

// lookUpTables reads --hypertable and what the source says of the tables.
func (c *clone) lookUpTables(ctx context.Context) error {
	for _, spec := range c.Hypertables {
		table, rest, ok := pg.CutOutside(spec, '=')
		column, width, _ := pg.CutOutside(rest, ',')
		if !ok || table == "" || column == "" {
			return &Error{fmt.Sprintf("--hypertable %s: not TABLE=COLUMN[,INTERVAL]", spec),
				"--hypertable 'public.metrics=time,1 day'"}
		}
		t, err := c.lookUpTable(ctx, table, column)
		if err == nil {
			err = t.width(ctx, c.conn, width)
		}
		if err != nil {
			return err
		}
		c.tables = append(c.tables, t)
	}
	return nil
}

func (c *clone) lookUpTable(ctx context.Context, table, column string) (*plain, error) {
	var t plain
	var kind, permanent, child bool
	var keys, references []string
	err := c.conn.QueryRow(ctx, tableSQL, table, column).Scan(&t.oid, &t.name.Schema, &t.name.Name, &t.quoted,
		&kind, &permanent, &child, &t.partitions, &t.column, &t.typ, &t.children,
		&keys, &references, &t.ruleOIDs, &t.rules, &t.triggers)
	refuse := func(hint, format string, args ...any) (*plain, error) {
		return nil, &Error{"source: " + fmt.Sprintf(format, args...), hint}
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return refuse("spell it as in SQL: schema.table, quoted where it has to be", "there is no table %s", table)
	case err != nil:
		return nil, c.conn.Wrap(err, "look for table %s", table)
	case !kind:
		return refuse("name a table", "%s is no table", t.name)
	case !permanent:
		return refuse("alter table ... set logged", "table %s is unlogged or temporary, a hypertable is neither",
			t.name)
	case child:
		return refuse("name the table that it is a partition or a child of",
			"table %s is a partition or a child of another table", t.name)
	case t.column == "":
		return refuse("name one of its columns", "table %s has no column %s", t.name, column)
	}
	if err := errors.Join(parseKeys(keys, &t.keys), parseKeys(references, &t.references)); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(c.tables, func(o *plain) bool { return o.oid == t.oid }) {
		return refuse("give it once", "table %s is named twice", t.name)
	}
	children, err := c.named(ctx, t.children, "r", "p", "f")
	c.internals = append(c.internals, children...)
	return &t, err
}

func parseKeys(texts []string, keys *[]key) error {
	for _, text := range texts {
		var k key
		if err := json.Unmarshal([]byte(text), &k); err != nil {
			return err
		}
		*keys = append(*keys, k)
	}
	return nil
}

// width reads the interval of the chunks: seven days, where it is not given.
func (t *plain) width(ctx context.Context, conn *pg.Conn, s string) (err error) {
	d := tsdb.DimensionDefinition{RangeType: t.typ}
	times := []string{"timestamp with time zone", "timestamp without time zone", "date", "uuid"}
	switch {
	case !d.Integer() && !slices.Contains(times, t.typ):
		return &Error{fmt.Sprintf("source: column %s of table %s has type %s: a hypertable goes by a time, a date, "+
			"an integer or a uuid of version 7", t.column, t.name, t.typ), "name another column"}
	case d.Integer() && s == "":
		return &Error{fmt.Sprintf("--hypertable %s=%s: column of type %s without an interval", t.name, t.column, t.typ),
			"append how much of it a chunk shall span: ,86400"}
	case d.Integer():
		t.interval, err = strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	default:
		if s == "" {
			s = "7 days"
		}
		err = conn.QueryRow(ctx, "select (extract(epoch from $1::text::interval) * 1000000)::bigint", s).
			Scan(&t.interval)
	}
	if err != nil || t.interval <= 0 {
		if conn.Lost() {
			return conn.Wrap(err, "interval")
		}
		return &Error{fmt.Sprintf("--hypertable %s=%s: %q is no interval for a column of type %s",
			t.name, t.column, s, t.typ), "examples: '1 day', 86400 for integers"}
	}
	return nil
}

func (t *plain) definition() *tsdb.Definition {
	return &tsdb.Definition{OID: t.oid, Name: t.name,
		Dimensions: []tsdb.DimensionDefinition{{Column: t.column, Interval: t.interval, RangeType: t.typ}}}
}

// obstacles are what a hypertable cannot have; on some versions foreign keys
// that reference it.
func (t *plain) obstacles(referable bool) (all []obstacle) {
	if !referable {
		for _, k := range t.references {
			all = append(all, obstacle{fmt.Sprintf("foreign key %s of %s to %s", k.Name, k.Columns[0], t.name),
				"the target's TimescaleDB has no foreign keys to hypertables", []object{{k.Class, k.OID}}})
		}
	}
	for _, k := range t.keys {
		all = append(all, obstacle{fmt.Sprintf("%s %s (%s) of %s", k.Kind, k.Name,
			strings.Join(k.Columns, ", "), t.name),
			fmt.Sprintf("it lacks the column %s, which each unique key of a hypertable must have: add it to the key, "+
				"here or (after --leave-out) on the target, where the application can live with that", t.column),
			[]object{{k.Class, k.OID}}})
	}
	for i, r := range t.rules {
		all = append(all, obstacle{fmt.Sprintf("rule %s of %s", r, t.name),
			"a hypertable has no rules; where it sends rows to partitions, the hypertable does so itself",
			[]object{{pgRewrite, t.ruleOIDs[i]}}})
	}
	return all
}
