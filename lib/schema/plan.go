package schema

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed dependents.sql
	dependentsSQL string
	//go:embed uses.sql
	usesSQL string
	//go:embed lacking.sql
	lackingSQL string
	//go:embed own_triggers.sql
	ownTriggersSQL string
	//go:embed referring.sql
	referringSQL string
)

// catalogs are what TimescaleDB's catalogs of a side say.
type catalogs struct {
	hypertables []*tsdb.Definition // without those behind aggregates
	aggregates  []*tsdb.AggregateDefinition
	jobs        []*tsdb.JobDefinition
	internals   []tsdb.Internal
}

func readCatalogs(ctx context.Context, db *tsdb.DB) (c catalogs, err error) {
	ds, err := tsdb.Definitions(ctx, db)
	if err == nil {
		c.aggregates, c.hypertables, err = tsdb.AggregateDefinitions(ctx, db, ds)
	}
	if err == nil {
		c.jobs, err = tsdb.JobDefinitions(ctx, db)
	}
	if err == nil {
		c.internals, err = tsdb.Internals(ctx, db)
	}
	return c, err
}

// plan is what is to be made.
type plan struct {
	catalogs
	lacking []use
	own     map[object]bool // what the server makes by itself
	left    map[object]bool // what is left out
	late    map[object]bool // what depends on a continuous aggregate
}

// use is an object of a user's that needs one of TimescaleDB's.
type use struct {
	needed string
	by     object
}

// obstacle is why something cannot be created on the target, and what goes with it.
type obstacle struct {
	what, why string
	roots     []object
}

// lacking lists what the source's objects use of TimescaleDB and the target's
// does not have.
func (c *sides) lacking(ctx context.Context, dst *tsdb.DB) ([]use, error) {
	ds, err := tsdb.Definitions(ctx, c.src)
	if err != nil {
		return nil, err
	}
	as, _, err := tsdb.AggregateDefinitions(ctx, c.src, ds)
	if err != nil {
		return nil, err
	}
	var direct, views []uint32
	for _, a := range as {
		direct, views = append(direct, a.Direct), append(views, a.OID)
	}
	rows, err := c.conn.Query(ctx, usesSQL, direct, views)
	if err != nil {
		return nil, c.conn.Wrap(err, "list what uses TimescaleDB")
	}
	var types, identities []string
	var uses []use
	var typ string
	var u use
	if _, err = pgx.ForEachRow(rows, []any{&typ, &u.needed, &u.by.class, &u.by.oid}, func() error {
		types, identities, uses = append(types, typ), append(identities, u.needed), append(uses, u)
		return nil
	}); err != nil {
		return nil, c.conn.Wrap(err, "list what uses TimescaleDB")
	}
	if rows, err = dst.Query(ctx, lackingSQL, types, identities); err != nil {
		return nil, dst.Wrap(err, "look for TimescaleDB's functions")
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[int])
	var lacking []use
	for _, n := range missing {
		lacking = append(lacking, uses[n-1])
	}
	return lacking, dst.Wrap(err, "look for TimescaleDB's functions")
}

// prepare decides what is made. What cannot be created is named before anything is.
func (c *clone) prepare(ctx context.Context) error {
	if err := c.lookUpTables(ctx); err != nil {
		return err
	}
	if err := c.lookUpHypertables(ctx); err != nil {
		return err
	}
	obstacles := c.obstacles()
	if err := c.leaveOut(ctx, obstacles); err != nil {
		return err
	}
	if len(obstacles) > 0 && !c.LeaveOut {
		return &Error{fmt.Sprintf("%s cannot be created on the target; nothing was made",
			count(len(obstacles), "thing")),
			"--leave-out makes the target without, and without what depends on it"}
	}
	var views []object
	for _, a := range c.plan.aggregates {
		views = append(views, object{pgClass, a.OID})
	}
	dependents, err := c.dependents(ctx, views)
	if err != nil {
		return err
	}
	c.plan.late = map[object]bool{}
	for o := range dependents {
		c.plan.late[o] = true
	}
	return c.lookUpReferring(ctx)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lookUpHypertables reads what TimescaleDB's catalogs of the source say.
func (c *clone) lookUpHypertables(ctx context.Context) (err error) {
	p := &c.plan
	p.own, p.left = map[object]bool{}, map[object]bool{}
	for _, t := range c.tables {
		p.hypertables = append(p.hypertables, t.definition())
		for _, oid := range t.children {
			p.own[object{pgClass, oid}] = true
		}
	}
	if c.src != nil {
		if err := c.readCatalogs(ctx); err != nil {
			return err
		}
	}
	for _, d := range p.hypertables {
		for _, name := range d.Tablespaces {
			if !slices.Contains(c.target.tablespaces, name) {
				return &Error{"target: these tablespaces do not exist there: " + name, "create them"}
			}
		}
		c.hypertable[d.Name] = true
		c.dialect.types[d.Name] = d.Dimensions[0].RangeType
	}
	for _, a := range p.aggregates {
		c.dialect.nested[a.View] = a.Nested && !c.pausesNested
		c.dialect.types[a.View] = a.Hypertable.Dimensions[0].RangeType
	}
	return nil
}

func (c *clone) readCatalogs(ctx context.Context) error {
	p, tables := &c.plan, c.plan.hypertables
	var err error
	if p.catalogs, err = readCatalogs(ctx, c.src); err != nil {
		return err
	}
	for _, t := range c.tables {
		if slices.ContainsFunc(p.hypertables, func(d *tsdb.Definition) bool { return d.OID == t.oid }) {
			return &Error{fmt.Sprintf("source: table %s is a hypertable already", t.name),
				"leave out --hypertable for it"}
		}
	}
	p.hypertables = append(p.hypertables, tables...)
	for _, i := range p.internals {
		p.own[object{pgClass, i.OID}] = true
		c.internals = append(c.internals, i.Name)
	}
	var views []uint32
	for _, a := range p.aggregates {
		views = append(views, a.OID)
	}
	rows, err := c.conn.Query(ctx, ownTriggersSQL, views)
	if err != nil {
		return c.conn.Wrap(err, "list triggers")
	}
	var o object
	_, err = pgx.ForEachRow(rows, []any{&o.class, &o.oid}, func() error {
		p.own[o] = true
		return nil
	})
	return c.conn.Wrap(err, "list triggers")
}

// obstacles lists what cannot be created.
func (c *clone) obstacles() (all []obstacle) {
	say := func(roots []object, what, format string, args ...any) {
		all = append(all, obstacle{what, fmt.Sprintf(format, args...), roots})
	}
	for _, t := range c.tables {
		all = append(all, t.obstacles(c.referable)...)
	}
	const edition = "the target's Apache edition has none"
	for _, a := range c.plan.aggregates {
		view := []object{{pgClass, a.OID}}
		switch {
		case !c.full:
			say(view, "continuous aggregate "+a.View.String(), edition)
		case a.Partial:
			say(view, "continuous aggregate "+a.View.String(),
				"it is in the old format (finalized = false): call cagg_migrate(%s) on the source", relation(a.View))
		}
	}
	for _, d := range c.plan.hypertables {
		if d.Compressed && !c.full {
			say(nil, "compression of "+d.Name.String(), edition)
		}
		if d.ChunkTarget > 0 && !c.dialect.Has("set_adaptive_chunking") {
			say(nil, "adaptive chunking of "+d.Name.String(), "the target's TimescaleDB has none")
		}
		if len(d.Skips) > 0 && !c.dialect.Has("enable_chunk_skipping") {
			say(nil, "chunk skipping of "+d.Name.String(), "the target's TimescaleDB has none")
		}
	}
	for _, j := range c.plan.jobs {
		if add, _ := c.dialect.add(j); add == "" {
			say(nil, describe(j), "TimescaleDB has no function that adds such a job")
		} else if !c.full {
			say(nil, describe(j), edition)
		}
	}
	for _, u := range c.plan.lacking {
		say([]object{u.by}, "what uses "+u.needed, "the target's TimescaleDB does not have it")
	}
	return all
}

// describe names a job of the source in messages.
func describe(j *tsdb.JobDefinition) string {
	s := fmt.Sprintf("job %d (%s", j.ID, j.Proc.Name)
	if !j.Policy() {
		s = fmt.Sprintf("job %d (%s", j.ID, j.Proc)
	}
	if j.Of != nil {
		s += " of " + j.Of.String()
	}
	return s + ")"
}

// leaveOut removes what cannot be created from the plan, with what depends on it, and
// names all of it.
func (c *clone) leaveOut(ctx context.Context, obstacles []obstacle) error {
	if len(obstacles) == 0 {
		return nil
	}
	var roots []object
	for _, o := range obstacles {
		c.Warn("cannot be created: %s: %s", o.what, o.why)
		roots = append(roots, o.roots...)
	}
	dependents, err := c.dependents(ctx, roots)
	for err == nil {
		// What an aggregate is computed from, its query (direct view) depends on, and its
		// user view does not.
		n := len(roots)
		for _, a := range c.plan.aggregates {
			_, query := dependents[object{pgClass, a.Direct}]
			_, view := dependents[object{pgClass, a.OID}]
			if query && !view {
				roots = append(roots, object{pgClass, a.OID})
			}
		}
		if len(roots) == n {
			break
		}
		dependents, err = c.dependents(ctx, roots)
	}
	if err != nil {
		return err
	}
	byName := func(a, b object) int { return strings.Compare(dependents[a], dependents[b]) }
	for _, o := range slices.SortedFunc(maps.Keys(dependents), byName) {
		c.plan.left[o] = true
		if dependents[o] != "" && !slices.Contains(roots, o) {
			c.Warn("nor what depends on it: %s", dependents[o])
		}
	}
	c.leaveOutOfCatalogs()
	c.leftTables, err = c.named(ctx, c.plan.leftOIDs(), "r", "p", "S")
	return err
}

// named are those of the objects that are relations of these kinds.
func (c *sides) named(ctx context.Context, oids []uint32, kinds ...string) ([]task.Name, error) {
	return names(ctx, c.conn, "list tables", `select nspname, relname
		from pg_class c join pg_namespace n on n.oid = relnamespace
		where c.oid = any($1::oid[]) and relkind::text = any($2::text[]) order by 1, 2`, oids, kinds)
}

// leftOIDs are the numbers of what is left out.
func (p *plan) leftOIDs() []uint32 {
	oids := []uint32{}
	for o := range p.left {
		oids = append(oids, o.oid)
	}
	return oids
}

// leaveOutOfCatalogs takes what is left out of the plan for hypertables,
// aggregates and jobs.
func (c *clone) leaveOutOfCatalogs() {
	p := &c.plan
	gone := map[task.Name]bool{}
	p.hypertables = slices.DeleteFunc(p.hypertables, func(d *tsdb.Definition) bool {
		left := p.left[object{pgClass, d.OID}]
		gone[d.Name] = left
		d.Compressed = d.Compressed && c.full
		if !c.dialect.Has("set_adaptive_chunking") {
			d.ChunkTarget = 0
		}
		if !c.dialect.Has("enable_chunk_skipping") {
			d.Skips = nil
		}
		return left
	})
	p.aggregates = slices.DeleteFunc(p.aggregates, func(a *tsdb.AggregateDefinition) bool {
		gone[a.View] = p.left[object{pgClass, a.OID}]
		return gone[a.View]
	})
	p.jobs = slices.DeleteFunc(p.jobs, func(j *tsdb.JobDefinition) bool {
		add, _ := c.dialect.add(j)
		return add == "" || !c.full || j.Of != nil && gone[*j.Of]
	})
}

// dependents lists what depends on objects, themselves included, with what
// people call it; "" for parts of others.
func (c *sides) dependents(ctx context.Context, of []object) (map[object]string, error) {
	classes, oids := make([]uint32, len(of)), make([]uint32, len(of))
	for i, o := range of {
		classes[i], oids[i] = o.class, o.oid
	}
	rows, err := c.conn.Query(ctx, dependentsSQL, classes, oids)
	if err != nil {
		return nil, c.conn.Wrap(err, "look up what depends on what")
	}
	all := map[object]string{}
	var o object
	var name string
	_, err = pgx.ForEachRow(rows, []any{&o.class, &o.oid, &name}, func() error {
		all[o] = name
		return nil
	})
	return all, c.conn.Wrap(err, "look up what depends on what")
}

// lookUpReferring lists the tables whose rows cannot be copied before the backfill.
func (c *clone) lookUpReferring(ctx context.Context) (err error) {
	hypertables, children := []uint32{}, []uint32{}
	for _, d := range c.plan.hypertables {
		hypertables = append(hypertables, d.OID)
	}
	for _, t := range c.tables {
		children = append(children, t.children...)
	}
	c.referring, err = names(ctx, c.conn, "list foreign keys", referringSQL, hypertables, children, c.plan.leftOIDs())
	return err
}

// withoutRows are the tables whose rows are not copied, quoted.
func (c *clone) withoutRows() (tables []string) {
	for _, d := range c.plan.hypertables {
		tables = append(tables, pg.Ident(d.Name.Schema, d.Name.Name))
	}
	for _, n := range c.referring {
		tables = append(tables, pg.Ident(n.Schema, n.Name))
	}
	return tables
}
