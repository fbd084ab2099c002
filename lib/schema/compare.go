package schema

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

//go:embed objects.sql
var objectsSQL string

// Difference is what the schemas of the two sides differ in. It is a record.
type Difference struct {
	V      int    `json:"v"`
	Kind   string `json:"kind"`           // "difference"
	Object string `json:"object"`         // its kind and name: table public.metrics
	Part   string `json:"part,omitempty"` // of it; "" where one side lacks the object
	Source string `json:"source"`
	Target string `json:"target"`
	// Helps is the statement that makes the target like the source, where there
	// is one.
	Helps string `json:"helps,omitempty"`
}

// String is the difference in a message.
func (d *Difference) String() string {
	what := d.Object
	if d.Part != "" {
		what += ", " + d.Part
	}
	s := fmt.Sprintf("%s: %s on the source, %s on the target", what, brief(d.Source), brief(d.Target))
	if d.Helps != "" {
		s += "; this helps: " + brief(d.Helps)
	}
	return s
}

// brief is a text as a message has it.
func brief(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 300 {
		return string(r[:300]) + "..."
	}
	return s
}

// thing is an object of a schema.
type thing struct{ kind, name string }

// trait is what a thing is in one respect, and the statement that makes it so.
type trait struct{ value, help string }

// things are all of a schema: by thing and part, "" for the thing itself.
type things struct {
	traits    map[thing]map[string]trait
	of        map[thing]string // the relation that a thing is a part of
	relations map[string]bool  // all there are
}

func newThings() *things {
	return &things{map[thing]map[string]trait{}, map[thing]string{}, map[string]bool{}}
}

func (ts *things) add(of thing, part, value, help string) {
	if ts.traits[of] == nil {
		ts.traits[of] = map[string]trait{}
	}
	ts.traits[of][part] = trait{value, help}
}

// mirror is one side of a comparison.
type mirror struct {
	*pg.Conn
	db        *tsdb.DB // the same; nil without TimescaleDB
	internals []uint32 // chunks
	catalogs  catalogs
	things    *things
	major     int
}

// Comparison is what comparing the schemas of two sides has found.
type Comparison struct {
	Differences []*Difference
	Objects     int // that were compared
	// Resume is the statement that resumes the jobs which are paused on the target
	// and scheduled on the source; "" for none.
	Resume string
}

// Compare compares the schemas of the two sides. It only reads.
func Compare(ctx context.Context, source, target string, o pg.Options) (*Comparison, error) {
	var sides [2]*mirror
	for i, s := range []struct {
		side pg.Side
		conn string
	}{{pg.Source, source}, {pg.Target, target}} {
		conn, err := pg.Connect(ctx, s.side, s.conn, o)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		if sides[i], err = reflect(ctx, conn); err != nil {
			return nil, err
		}
	}
	src, dst := sides[0], sides[1]
	switch {
	case dst.db == nil:
		return nil, &Error{"target: the database does not have the extension timescaledb", "check --target"}
	case src.db != nil && src.db.Identity == dst.db.Identity:
		return nil, &Error{"target: source and target are the same database", "check --source and --target"}
	}
	l, err := tsdb.LanguageOf(ctx, dst.db)
	if err != nil {
		return nil, err
	}
	d := dialect{Language: l, extension: dst.db.ExtensionSchema,
		types: map[task.Name]string{}, nested: map[task.Name]bool{}}
	if err := dst.QueryRow(ctx, "select current_user").Scan(&d.user); err != nil {
		return nil, dst.Wrap(err, "look at the database")
	}
	for _, m := range sides {
		m.learn(d)
	}
	c := &Comparison{}
	if src.db == nil {
		src.plainAs(dst)
	}
	for _, m := range sides {
		m.say(d)
	}
	c.Differences, c.Objects = differences(src, dst), len(src.things.traits)
	more, err := counters(ctx, src, dst)
	c.Differences = append(c.Differences, more...)
	c.Resume = toBeResumed(d, src, dst)
	return c, err
}

// reflect reads what a side is, in one snapshot.
func reflect(ctx context.Context, conn *pg.Conn) (m *mirror, err error) {
	m = &mirror{Conn: conn, major: conn.Major(), things: newThings(), internals: []uint32{}}
	if _, err := conn.Exec(ctx, "begin isolation level repeatable read read only"); err != nil {
		return nil, conn.Wrap(err, "begin")
	}
	m.db, err = tsdb.On(ctx, conn)
	if errors.Is(err, tsdb.ErrNoExtension) {
		m.db, err = nil, nil
	}
	if err == nil && m.db != nil {
		m.catalogs, err = readCatalogs(ctx, m.db)
	}
	for _, i := range m.catalogs.internals {
		m.internals = append(m.internals, i.OID)
	}
	if err == nil {
		err = m.readObjects(ctx)
	}
	return m, err
}

func (m *mirror) readObjects(ctx context.Context) error {
	views := []uint32{}
	for _, a := range m.catalogs.aggregates {
		views = append(views, a.OID)
	}
	rows, err := m.Query(ctx, objectsSQL, m.internals, views)
	if err != nil {
		return m.Wrap(err, "list what there is")
	}
	var t thing
	var of, part, value, help string
	_, err = pgx.ForEachRow(rows, []any{&t.kind, &t.name, &of, &part, &value, &help}, func() error {
		m.things.add(t, part, value, help)
		if of != "" {
			m.things.of[t] = of
		}
		if slices.Contains([]string{"table", "view", "materialized view", "foreign table"}, t.kind) {
			m.things.relations[t.name] = true
		}
		return nil
	})
	return m.Wrap(err, "list what there is")
}

// learn has a dialect know the dimensions of the side's hypertables.
func (m *mirror) learn(l dialect) {
	for _, d := range m.catalogs.hypertables {
		l.types[d.Name] = d.Dimensions[0].RangeType
	}
	for _, a := range m.catalogs.aggregates {
		l.types[a.View] = a.Hypertable.Dimensions[0].RangeType
	}
}

// plainAs leaves out, of a source without TimescaleDB, what hypertables of the
// target stand for: their partitions and children.
func (m *mirror) plainAs(dst *mirror) {
	gone := map[string]bool{}
	for _, d := range dst.catalogs.hypertables {
		gone[quote(d.Name)] = true
		delete(m.things.traits[thing{"table", quote(d.Name)}], "partitioned by")
	}
	for n := 0; n < len(gone); {
		n = len(gone)
		for t, traits := range m.things.traits {
			if gone[traits["child of"].value] {
				gone[t.name] = true
				delete(m.things.traits, t)
			}
		}
	}
	for _, d := range dst.catalogs.hypertables {
		delete(gone, quote(d.Name))
	}
	for t, of := range m.things.of {
		if gone[of] {
			delete(m.things.traits, t)
		}
	}
	dst.catalogs = catalogs{} // nothing to compare them with
}

// differences lists what the two sides differ in.
func differences(src, dst *mirror) (all []*Difference) {
	normal := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if src.major != dst.major {
		normal = func(s string) string { return unqualified(strings.Join(strings.Fields(s), " ")) }
	}
	say := func(t thing, part, a, b, help string) {
		all = append(all, &Difference{V: task.Version, Kind: "difference", Object: t.kind + " " + t.name,
			Part: part, Source: a, Target: b, Helps: help})
	}
	everything := maps.Clone(src.things.traits)
	maps.Copy(everything, dst.things.traits)
	byName := func(a, b thing) int { return cmp.Or(strings.Compare(a.kind, b.kind), strings.Compare(a.name, b.name)) }
	for _, t := range slices.SortedFunc(maps.Keys(everything), byName) {
		a, onSource := src.things.traits[t]
		b, onTarget := dst.things.traits[t]
		switch {
		case !onTarget:
			if !src.partOf(t, dst) {
				say(t, "", "there", "absent", a[""].help)
			}
			continue
		case !onSource:
			if !dst.partOf(t, src) {
				say(t, "", "absent", "there", "")
			}
			continue
		}
		parts := maps.Clone(a)
		maps.Copy(parts, b)
		for _, part := range slices.Sorted(maps.Keys(parts)) {
			x, y := cmp.Or(a[part].value, "none"), cmp.Or(b[part].value, "none")
			if normal(x) != normal(y) {
				say(t, part, x, y, a[part].help)
			}
		}
	}
	return all
}

// partOf reports whether a thing is part of one that the other side lacks: that is
// reported, and no part of it.
func (m *mirror) partOf(t thing, other *mirror) bool {
	of := m.things.of[t]
	return of != "" && !other.things.relations[of]
}

var qualifier = regexp.MustCompile(`("(?:[^"]|"")+"|[\pL_][\pL\pN_$]*)\.(["\pL_])`)

// unqualified is SQL without the qualifiers of names. PostgreSQL ≥ 16 leaves out those
// of columns where they are not needed.
func unqualified(sql string) string {
	for {
		s := qualifier.ReplaceAllString(sql, "$2")
		if s == sql {
			return s
		}
		sql = s
	}
}
