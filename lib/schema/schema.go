// Package schema makes an empty target like the source: bf-clone-schema.
//
// Where both sides run the same TimescaleDB, its catalogs are copied as
// TimescaleDB documents it, and chunks come with their names and numbers
// (same.go). Everywhere else the target is made by statements: what pg_dump says
// of the users' objects, taken apart and put together again in another order
// (archive.go, order.go), and what the source's catalogs say of hypertables,
// continuous aggregates and jobs, in the target's SQL (timescale.go). These
// statements are also what is printed.
package schema

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// Name is how the tool calls itself.
const Name = "bf-clone-schema"

var (
	//go:embed source.sql
	sourceSQL string
	//go:embed target.sql
	targetSQL string
)

// Options say what to clone and how.
type Options struct {
	Source, Target string   // connection strings
	Hypertables    []string // plain tables to become hypertables: TABLE=COLUMN[,INTERVAL]
	// Print is where the script is written instead of being run; nil to run it.
	Print io.Writer
	// SchemaOnly leaves out the rows of plain tables and the values of
	// sequences.
	SchemaOnly bool
	// LeaveOut makes the target without what cannot be created.
	LeaveOut     bool
	NoOwner      bool // all belongs to the role of the target
	NoPrivileges bool // nothing is granted
	// Info and Warn say things to people; Warn what they have to know.
	Info, Warn func(format string, args ...any)
}

// Error is a refusal, with what helps.
type Error struct{ text, hint string }

func (e *Error) Error() string { return e.text }

// Suggest is what helps.
func (e *Error) Suggest() string { return e.hint }

// sides are the two databases, and what is known of them before anything is made.
type sides struct {
	Options
	programs     programs
	conn         *pg.Conn // to the source, in a transaction
	src          *tsdb.DB // the same; nil for a source without TimescaleDB
	snapshot     string   // of that transaction, for pg_dump
	source       source
	target       target
	dialect      dialect
	full         bool   // the target is of the full edition
	pausesNested bool   // see tsdb.PausesNested
	referable    bool   // the target has foreign keys to hypertables
	jobsTable    string // the target's catalog of jobs
}

// clone is one run.
type clone struct {
	sides
	tables     []*plain // that are to become hypertables
	internals  []task.Name
	plan       plan
	referring  []task.Name // tables whose rows reference a hypertable's
	leftTables []task.Name // tables and sequences that are left out
	hypertable map[task.Name]bool
}

// source is what is known of the source without looking at TimescaleDB.
type source struct {
	major                                    int
	database, identity                       string
	roles, tablespaces, extensions, amethods []string
}

// target is what is known of the target before anything is made.
type target struct {
	major     int
	identity  string
	user      string
	there     bool   // the extension is
	version   string // of it, or of what will be created; "" for none
	extension string // its schema
	catalogs  bool   // the role may write TimescaleDB's catalogs
	locks     int
	relations int // of users

	roles, tablespaces, extensions, amethods, schemas []string
}

// Run clones the schema, or prints how.
func Run(ctx context.Context, o Options) error {
	c := &clone{sides: sides{Options: o}, hypertable: map[task.Name]bool{}}
	var err error
	if c.conn, err = pg.Connect(ctx, pg.Source, o.Source, pg.Options{Application: Name, Log: o.Info}); err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.lookAtSource(ctx); err != nil {
		return err
	}
	dst, err := pg.Connect(ctx, pg.Target, o.Target, pg.Options{Application: Name, Log: o.Info})
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := c.lookAtTarget(ctx, dst); err != nil {
		return err
	}
	if err := c.fits(); err != nil {
		return err
	}
	if c.programs, err = findPrograms(c.source.major, c.target.major); err != nil {
		return err
	}
	if err := c.probe(ctx, dst); err != nil {
		return err
	}
	if c.same() {
		return c.copyCatalogs(ctx)
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	return c.make(ctx)
}

// lookAtSource opens the transaction that everything is read in, and pg_dump
// reads with.
func (c *sides) lookAtSource(ctx context.Context) error {
	if _, err := c.conn.Exec(ctx, "begin isolation level repeatable read read only"); err != nil {
		return c.conn.Wrap(err, "begin")
	}
	s := &c.source
	err := c.conn.QueryRow(ctx, sourceSQL, !c.NoOwner, !c.NoPrivileges).Scan(&s.major, &s.database, &s.identity,
		&s.roles, &s.tablespaces, &s.extensions, &s.amethods)
	if err == nil {
		err = c.conn.QueryRow(ctx, "select pg_export_snapshot()").Scan(&c.snapshot)
	}
	if err != nil {
		return c.conn.Wrap(err, "look at the database")
	}
	c.src, err = tsdb.On(ctx, c.conn)
	if errors.Is(err, tsdb.ErrNoExtension) {
		c.src, err = nil, nil
		if len(c.Hypertables) == 0 {
			return &Error{"source: the database does not have the extension timescaledb",
				"name its tables that are to become hypertables: --hypertable TABLE=COLUMN[,INTERVAL]"}
		}
	}
	return err
}

func (c *sides) version() string {
	if c.src == nil {
		return ""
	}
	return c.src.TimescaleDB
}

func (c *sides) lookAtTarget(ctx context.Context, dst *pg.Conn) error {
	t := &c.target
	err := dst.QueryRow(ctx, targetSQL, c.version()).Scan(&t.major, &t.identity, &t.user, &t.there, &t.version,
		&t.extension, &t.catalogs, &t.locks, &t.roles, &t.tablespaces, &t.extensions, &t.amethods, &t.schemas,
		&t.relations)
	if t.extension == "" {
		t.extension = "public"
		if c.src != nil {
			t.extension = c.src.ExtensionSchema
		}
	}
	return dst.Wrap(err, "look at the database")
}

// fits refuses what cannot work at all.
func (c *sides) fits() error {
	s, t := &c.source, &c.target
	refuse := func(hint, format string, args ...any) error { return &Error{fmt.Sprintf(format, args...), hint} }
	missing := func(want, have []string) string {
		there := func(n string) bool { return slices.Contains(have, n) }
		return strings.Join(slices.DeleteFunc(slices.Clone(want), there), ", ")
	}
	switch {
	case s.identity == t.identity:
		return refuse("check --source and --target", "target: source and target are the same database")
	case t.relations > 0:
		return refuse("create a new database for it",
			"target: the database is not empty: it has %d tables, views and sequences", t.relations)
	case t.version == "":
		return refuse("install TimescaleDB on it", "target: the server does not have the extension timescaledb")
	case t.major < s.major:
		return refuse("a schema moves to the same PostgreSQL or a newer one",
			"target: PostgreSQL %d is older than the source's %d", t.major, s.major)
	case c.src != nil && !tsdb.AtLeast(t.version, c.version()):
		return refuse("a schema moves to the same TimescaleDB or a newer one: update the target's "+
			"(alter extension timescaledb update; on an empty database drop and create it)",
			"target: TimescaleDB %s is older than the source's %s", t.version, c.version())
	case c.src != nil && t.extension != c.src.ExtensionSchema:
		return refuse("drop the extension on the (empty) target and run this again",
			"source has the extension timescaledb in schema %s, target in %s: "+
				"views and functions name its functions with the schema", c.src.ExtensionSchema, t.extension)
	}
	for _, m := range []struct{ missing, what, hint string }{
		{missing(s.roles, t.roles), "roles",
			"create them, or copy all with pg_dumpall --roles-only; or give --no-owner and --no-privileges"},
		{missing(s.tablespaces, t.tablespaces), "tablespaces", "create them"},
		{missing(s.extensions, t.extensions), "extensions", "install them on the target's server"},
		{missing(s.amethods, t.amethods), "table access methods",
			"change the tables that have them on the source: alter table ... set access method heap"},
	} {
		if m.missing != "" {
			return refuse(m.hint, "target: these %s do not exist there: %s", m.what, m.missing)
		}
	}
	return nil
}

// probe finds out what the target's TimescaleDB can do. Where the extension is
// not there yet, it is created in a transaction that is rolled back.
func (c *clone) probe(ctx context.Context, dst *pg.Conn) error {
	if _, err := dst.Exec(ctx, "begin"); err != nil {
		return dst.Wrap(err, "begin")
	}
	if !c.target.there {
		sql := "set local client_min_messages = error; " + strings.Join(c.createExtension(), " ")
		if _, err := dst.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			err := dst.Wrap(err, "create extension timescaledb")
			if pg.Code(err) == pg.InsufficientRight {
				return &Error{err.Error(), "have a superuser create the extension on the target"}
			}
			return err
		}
	}
	db, err := tsdb.On(ctx, dst)
	if err != nil {
		return err
	}
	language, err := tsdb.LanguageOf(ctx, db)
	if err != nil {
		return err
	}
	c.full = db.Full
	c.dialect = dialect{Language: language, extension: c.target.extension, user: c.target.user,
		types: map[task.Name]string{}, nested: map[task.Name]bool{}}
	pauses := true
	if c.src != nil && db.Full {
		if pauses, err = tsdb.PausesNested(ctx, db); err != nil {
			return err
		}
	}
	c.pausesNested = pauses
	if len(c.Hypertables) > 0 {
		if c.referable, err = tsdb.Referable(ctx, db); err != nil {
			return err
		}
	}
	c.jobsTable = tsdb.JobsTable(db)
	// What the source's objects use of TimescaleDB has to be looked for while the
	// extension is there.
	if c.src != nil && !c.same() {
		if c.plan.lacking, err = c.lacking(ctx, db); err != nil {
			return err
		}
	}
	_, err = dst.Exec(ctx, "rollback")
	return dst.Wrap(err, "rollback")
}

func (c *sides) createExtension() []string {
	var sql []string
	if !slices.Contains(c.target.schemas, c.target.extension) {
		sql = append(sql, "create schema "+word(c.target.extension)+";")
	}
	return append(sql, fmt.Sprintf("create extension timescaledb schema %s version %s;",
		word(c.target.extension), pg.Literal(c.target.version)))
}

// same reports whether the catalogs can be copied as they are.
func (c *sides) same() bool {
	return c.src != nil && c.version() == c.target.version && (c.full || !c.src.Full) && c.target.catalogs &&
		c.Print == nil && len(c.Hypertables) == 0 && !c.SchemaOnly && !c.NoOwner && !c.NoPrivileges
}

// names reads rows of a schema and a name.
func names(ctx context.Context, conn *pg.Conn, what, sql string, args ...any) ([]task.Name, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, conn.Wrap(err, "%s", what)
	}
	ns, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (n task.Name, err error) {
		err = r.Scan(&n.Schema, &n.Name)
		return n, err
	})
	return ns, conn.Wrap(err, "%s", what)
}
