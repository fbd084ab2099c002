package schema

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

//go:embed needs.sql
var needsSQL string

// maker writes the statements in their order.
type maker struct {
	*clone
	sink
	entries    []*entry // that are made
	byObject   map[object]*entry
	byID       map[int]*entry
	late       map[*entry]bool // made after the continuous aggregates that they depend on
	needs      map[*entry][]*entry
	aggregates map[object]*tsdb.AggregateDefinition
	populated  map[object]bool // materialized views with rows
	made       map[*entry]bool
	settings   [2]string // default_tablespace, default_table_access_method
	refresh    []task.Name
}

// write writes all statements between begin and commit.
func (m *maker) write(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		m.head,
		// Tables with their columns, and all else that no key has to be there for.
		m.phase(func(e *entry) bool { return !e.post && !m.late[e] && !last(e) }),
		m.hypertables,
		m.data,
		// The query of an aggregate may rely on a primary key.
		m.phase(func(e *entry) bool { return e.post && !m.late[e] && isKey(e) }),
		m.phase(func(e *entry) bool { return m.late[e] && !last(e) }),
		// A hypertable with row security can have no new aggregate.
		m.phase(func(e *entry) bool { return !last(e) }),
		// ≤ 2.28: a column privilege cannot be granted once compression is
		// enabled. What is made from then on must not get default privileges.
		m.phase(func(e *entry) bool { return e.kind == "ACL" }),
		m.tuning,
		m.phase(func(e *entry) bool { return !eventTrigger(e) }),
		m.jobs,
		m.materialize,
		m.phase(func(*entry) bool { return true }),
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// last reports whether an entry comes when all objects are there: privileges,
// default ones above all, and event triggers.
func last(e *entry) bool {
	return e.kind == "ACL" || e.kind == "DEFAULT ACL" || eventTrigger(e)
}

// eventTrigger reports whether an entry is an event trigger, or the comment on one.
func eventTrigger(e *entry) bool {
	return e.kind == "EVENT TRIGGER" || e.kind == "COMMENT" && strings.HasPrefix(e.name, "EVENT TRIGGER ")
}

func isKey(e *entry) bool {
	return slices.Contains([]string{"CONSTRAINT", "CHECK CONSTRAINT", "INDEX", "INDEX ATTACH", "STATISTICS"}, e.kind)
}

// order sorts the entries of the dump into those that are made, and when.
func (m *maker) order(ctx context.Context, all []*entry) error {
	m.byObject, m.byID, m.late = map[object]*entry{}, map[int]*entry{}, map[*entry]bool{}
	m.needs, m.made = map[*entry][]*entry{}, map[*entry]bool{}
	m.aggregates = map[object]*tsdb.AggregateDefinition{}
	for _, a := range m.plan.aggregates {
		m.aggregates[object{pgClass, a.OID}] = a
	}
	gone := map[int]bool{}
	for _, e := range all {
		// What has no OID of its own, a comment for example, goes with its object.
		with := func(is func(int) bool) bool { return e.object.class == 0 && slices.ContainsFunc(e.needs, is) }
		if m.plan.own[e.object] || m.plan.left[e.object] || e.object.class == pgExtension && e.name == "timescaledb" ||
			with(func(id int) bool { return gone[id] }) || m.foreign(e) {
			gone[e.id] = true
			continue
		}
		m.late[e] = m.plan.late[e.object] || with(func(id int) bool { return m.byID[id] != nil && m.late[m.byID[id]] })
		m.entries, m.byID[e.id] = append(m.entries, e), e
		if e.object.class != 0 && m.byObject[e.object] == nil {
			m.byObject[e.object] = e
		}
	}
	for _, e := range m.entries {
		for _, id := range e.needs {
			if n := m.byID[id]; n != nil && n != e {
				m.needs[e] = append(m.needs[e], n)
			}
		}
	}
	if err := m.orderAggregates(ctx); err != nil {
		return err
	}
	return m.lookUpPopulated(ctx)
}

// foreign reports whether an entry grants privileges on an object of TimescaleDB's: those
// are the extension's own matter on the target.
func (m *maker) foreign(e *entry) bool {
	if e.kind != "ACL" {
		return false
	}
	schema, ok := strings.CutPrefix(e.name, "SCHEMA ")
	if !ok {
		schema = e.schema
	}
	return strings.HasPrefix(schema, "_timescaledb_") || strings.HasPrefix(schema, "timescaledb_") || m.orphan(e)
}

// orphan reports whether an ACL is of a function of the extension.
func (m *maker) orphan(e *entry) bool {
	if !strings.HasPrefix(e.name, "FUNCTION ") && !strings.HasPrefix(e.name, "PROCEDURE ") {
		return false
	}
	_, signature, _ := strings.Cut(e.name, " ")
	name, _, _ := strings.Cut(signature, "(")
	ours := slices.ContainsFunc(e.needs, func(id int) bool { return m.byID[id] != nil })
	return e.schema == m.target.extension && m.dialect.Has(name) && !ours
}

// orderAggregates has what the query of an aggregate needs made before it: the
// dump only knows what the view above it needs.
func (m *maker) orderAggregates(ctx context.Context) error {
	var direct []uint32
	entryOf := map[uint32]*entry{}
	for o, a := range m.aggregates {
		direct = append(direct, a.Direct)
		entryOf[a.Direct] = m.byObject[o]
	}
	rows, err := m.conn.Query(ctx, needsSQL, direct)
	if err != nil {
		return m.conn.Wrap(err, "look up what continuous aggregates need")
	}
	var view uint32
	var o object
	_, err = pgx.ForEachRow(rows, []any{&view, &o.class, &o.oid}, func() error {
		if a, n := entryOf[view], m.byObject[o]; a != nil && n != nil && n != a {
			m.needs[a] = append(m.needs[a], n)
		}
		return nil
	})
	return m.conn.Wrap(err, "look up what continuous aggregates need")
}

func (m *maker) lookUpPopulated(ctx context.Context) error {
	rows, err := m.conn.Query(ctx, "select oid from pg_class where relkind = 'm' and relispopulated")
	if err != nil {
		return m.conn.Wrap(err, "list materialized views")
	}
	oids, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	m.populated = map[object]bool{}
	for _, oid := range oids {
		m.populated[object{pgClass, oid}] = true
	}
	return m.conn.Wrap(err, "list materialized views")
}

// phase makes those entries that are chosen and not made yet, in the order of
// the dump. Among those that wait for aggregates, each has what it needs made
// before.
func (m *maker) phase(chosen func(*entry) bool) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, e := range m.entries {
			if chosen(e) {
				if err := m.entry(ctx, e, chosen); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func (m *maker) entry(ctx context.Context, e *entry, chosen func(*entry) bool) error {
	if m.made[e] {
		return nil
	}
	m.made[e] = true
	if m.late[e] {
		for _, n := range m.needs[e] {
			if m.late[n] && chosen(n) {
				if err := m.entry(ctx, n, chosen); err != nil {
					return err
				}
			}
		}
	}
	if a := m.aggregates[e.object]; a != nil {
		if err := m.about("continuous aggregate "+a.View.String(),
			"Continuous aggregate: "+a.View.String()); err != nil {
			return err
		}
		m.settings = [2]string{}
		return m.all(ctx, append([]string{"reset default_tablespace;"}, m.dialect.aggregate(a, !m.NoOwner)...))
	}
	if err := m.about(e.label(), e.comment()); err != nil {
		return err
	}
	for i, s := range e.settings {
		if s != "" && s != m.settings[i] {
			if err := m.do(ctx, s); err != nil {
				return err
			}
			m.settings[i] = s
		}
	}
	if m.populated[e.object] {
		m.refresh = append(m.refresh, task.Name{Schema: e.schema, Name: e.name})
	}
	for _, sql := range e.statements {
		if err := m.do(ctx, m.adapt(e, sql)); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) all(ctx context.Context, statements []string) error {
	for _, sql := range statements {
		if err := m.do(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// adapt changes what pg_dump writes where the target would refuse it: a hypertable takes
// no ALTER TABLE ONLY, and no PARTITION BY that the source's table has; a schema may be
// there already.
func (m *maker) adapt(e *entry, sql string) string {
	const only = "ALTER TABLE ONLY "
	if s, ok := strings.CutPrefix(sql, only); ok {
		if n, _, ok := qualified(s); ok && m.hypertable[n] {
			sql = "ALTER TABLE " + s
		}
	}
	sql = existingSchema(sql, append(m.target.schemas, m.target.extension))
	for _, t := range m.tables {
		switch {
		case t.partitions == "":
		case e.object == object{pgClass, t.oid}:
			if s, ok := strings.CutSuffix(sql, "\nPARTITION BY "+t.partitions+";"); ok {
				sql = s + ";"
			}
		case e.kind == "INDEX":
			sql = strings.Replace(sql, " ON ONLY "+t.quoted+" ", " ON "+t.quoted+" ", 1)
		}
	}
	return sql
}

// The settings of a session that makes what pg_dump describes.
var sessionSettings = []string{"statement_timeout = 0", "lock_timeout = 0", "idle_in_transaction_session_timeout = 0",
	"client_encoding = 'UTF8'", "standard_conforming_strings = on", "check_function_bodies = off",
	"xmloption = content",
	"client_min_messages = warning", "row_security = off"}

const searchPath = "select pg_catalog.set_config('search_path', '', false);"

// head prepares the session, and makes the extension where it is not there.
func (m *maker) head(ctx context.Context) error {
	from := fmt.Sprintf("PostgreSQL %d", m.source.major)
	if m.src != nil {
		from += " with TimescaleDB " + m.src.TimescaleDB
	}
	title := fmt.Sprintf("The schema of database %s, %s,\nfor PostgreSQL %d with TimescaleDB %s.",
		m.source.database, from, m.target.major, m.target.version)
	if err := m.about("session settings", title); err != nil {
		return err
	}
	sql := []string{"begin;"}
	for _, s := range sessionSettings {
		sql = append(sql, "set "+s+";")
	}
	sql = append(sql, searchPath)
	if err := m.all(ctx, sql); err != nil || m.target.there {
		return err
	}
	if err := m.about("extension timescaledb", "The extension; leave out what is there."); err != nil {
		return err
	}
	return m.all(ctx, m.createExtension())
}

func (m *maker) hypertables(ctx context.Context) error {
	for _, d := range m.plan.hypertables {
		if err := m.about("hypertable "+d.Name.String(), "Hypertable: "+d.Name.String()); err != nil {
			return err
		}
		if err := m.all(ctx, m.dialect.hypertable(d)); err != nil {
			return err
		}
	}
	return nil
}

// data copies the rows of plain tables and the values of sequences.
func (m *maker) data(ctx context.Context) error {
	if m.SchemaOnly {
		return nil
	}
	args := append([]string{"--section=data"}, m.dumpArgs("--exclude-table=")...)
	for _, t := range m.withoutRows() {
		args = append(args, "--exclude-table-data="+t)
	}
	for _, n := range m.leftTables {
		args = append(args, "--exclude-table="+pg.Ident(n.Schema, n.Name))
	}
	return stream(m.programs.command(ctx, "pg_dump", m.Source, args...), func(r io.Reader) error {
		return pipe(ctx, r, m.sink, true)
	})
}

// tuning makes the settings of hypertables and aggregates, which have to be complete for
// that.
func (m *maker) tuning(ctx context.Context) error {
	for _, d := range m.plan.hypertables {
		if sql := m.dialect.settings(d); len(sql) > 0 {
			if err := m.about("settings of "+d.Name.String(), "Settings of hypertable "+d.Name.String()); err != nil {
				return err
			}
			if err := m.all(ctx, sql); err != nil {
				return err
			}
		}
	}
	for _, a := range m.plan.aggregates {
		if sql := m.dialect.aggregateSettings(a); len(sql) > 0 {
			if err := m.about("settings of "+a.View.String(),
				"Settings of continuous aggregate "+a.View.String()); err != nil {
				return err
			}
			if err := m.all(ctx, sql); err != nil {
				return err
			}
		}
	}
	return nil
}

// jobs adds policies and actions, all paused.
func (m *maker) jobs(ctx context.Context) error {
	for _, j := range m.plan.jobs {
		state := "scheduled"
		if !j.Scheduled {
			state = "paused"
		}
		if !m.dialect.pausable(j) {
			later := fmt.Sprintf("On the source %s. This version cannot pause it; after the backfill:\n%s",
				describe(j), m.dialect.unpaused(j))
			if err := m.about("", later); err != nil {
				return err
			}
			continue
		}
		was := fmt.Sprintf("On the source %s, %s; made paused", describe(j), state)
		if err := m.about(describe(j)+" of the source", was); err != nil {
			return err
		}
		if err := m.all(ctx, m.dialect.job(j, !m.NoOwner)); err != nil {
			return err
		}
	}
	return nil
}

// materialize fills materialized views that are filled on the source, from what
// is there.
func (m *maker) materialize(ctx context.Context) error {
	if m.SchemaOnly {
		return nil
	}
	for _, n := range m.refresh {
		if err := m.about("materialized view "+n.String(), "Rows of materialized view "+n.String()); err != nil {
			return err
		}
		if err := m.do(ctx, "refresh materialized view "+pg.Ident(n.Schema, n.Name)+";"); err != nil {
			return err
		}
	}
	return nil
}

// make makes the target, or prints how.
func (c *clone) make(ctx context.Context) error {
	all, err := c.dumpSchema(ctx)
	if err != nil {
		return err
	}
	m := &maker{clone: c}
	if err := m.order(ctx, all); err != nil {
		return err
	}
	if c.Print != nil {
		return m.print(ctx)
	}
	return m.run(ctx)
}

func (m *maker) print(ctx context.Context) error {
	m.sink = printer{m.Print}
	if err := m.write(ctx); err != nil {
		return err
	}
	if err := m.about("", "All or nothing."); err != nil {
		return err
	}
	if err := m.do(ctx, "commit;"); err != nil {
		return err
	}
	if len(m.plan.jobs) > 0 {
		resume := "All jobs are paused. After the backfill, with the numbers that were printed as " + toResume + ":\n" +
			m.dialect.resume(m.plan.jobs, m.jobsTable, "NUMBER, ...")
		if err := m.about("", resume); err != nil {
			return err
		}
	}
	return nil
}

// run makes the target in one transaction.
func (m *maker) run(ctx context.Context) error {
	r, err := m.runner(ctx)
	if err != nil {
		return err
	}
	defer r.conn.Close()
	m.sink = r
	m.Info("%s", m.route())
	err = m.write(ctx)
	if err == nil {
		err = r.about("commit", "")
	}
	if err == nil {
		err = r.do(ctx, "commit")
	}
	if err != nil {
		m.nothingMade(ctx)
		return err
	}
	var later []*tsdb.JobDefinition
	m.plan.jobs = slices.DeleteFunc(m.plan.jobs, func(j *tsdb.JobDefinition) bool {
		if !m.dialect.pausable(j) {
			later = append(later, j)
		}
		return !m.dialect.pausable(j)
	})
	m.summary(r.resume)
	for _, j := range later {
		m.Warn("not made, as TimescaleDB %s cannot pause it: %s; after the backfill: %s",
			m.target.version, describe(j), m.dialect.unpaused(j))
	}
	return nil
}
