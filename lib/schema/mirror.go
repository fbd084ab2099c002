package schema

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

//go:embed counters.sql
var countersSQL string

// say adds what TimescaleDB's catalogs say, in the target's SQL.
func (m *mirror) say(l dialect) {
	for _, d := range m.catalogs.hypertables {
		t := thing{"hypertable", quote(d.Name)}
		m.things.of[t] = t.name
		m.things.add(t, "", "", strings.Join(l.hypertable(d), " "))
		m.sayDimensions(l, t, relation(d.Name), d)
		m.things.add(t, "schema of chunks", d.ChunkSchema, "")
		m.things.add(t, "prefix of chunks", d.ChunkPrefix, "")
		m.things.add(t, "tablespaces", strings.Join(d.Tablespaces, ", "), "")
		m.things.add(t, "chunk skipping", words(d.Skips), strings.Join(skipping(l, d), " "))
		if d.ChunkTarget > 0 {
			m.things.add(t, "adaptive chunking", fmt.Sprint(d.ChunkTarget), "")
		}
		for name, value := range d.Granular {
			m.things.add(t, name, value, "")
		}
		m.sayCompression(l, t, "table", d)
	}
	for _, a := range m.catalogs.aggregates {
		m.sayAggregate(l, a)
	}
	m.sayJobs(l)
}

func skipping(l dialect, d *tsdb.Definition) (sql []string) {
	only := &tsdb.Definition{Name: d.Name, Skips: d.Skips}
	return l.settings(only)
}

// sayDimensions says how the relation that SQL calls so is cut.
func (m *mirror) sayDimensions(l dialect, t thing, relation string, d *tsdb.Definition) {
	for i, dim := range d.Dimensions {
		part := "dimension " + word(dim.Column)
		m.things.add(t, part, fmt.Sprintf("number %d", i+1), "")
		name := literal(dim.Column)
		if dim.Partitions > 0 {
			m.things.add(t, part+", partitions", fmt.Sprint(dim.Partitions),
				"select "+l.call("set_number_partitions", "", relation, "", fmt.Sprint(dim.Partitions), "", name))
		} else {
			width := chunkInterval(dim)
			m.things.add(t, part+", interval of chunks", width,
				"select "+l.call("set_chunk_time_interval", "", relation, "", width, "dimension_name", name))
		}
		if dim.Func != nil {
			m.things.add(t, part+", function", quote(*dim.Func), "")
		}
		if dim.Now != nil {
			m.things.add(t, part+", now", quote(*dim.Now),
				"select "+l.call("set_integer_now_func", "", relation, "", regproc(dim.Now),
					"replace_if_exists", "true"))
		}
	}
}

func (m *mirror) sayCompression(l dialect, t thing, kind string, d *tsdb.Definition) {
	if !d.Compressed {
		m.things.add(t, "compression", "off", "")
		return
	}
	options := strings.Join(l.compression(d), ", ")
	if kind != "table" {
		kind = "materialized view"
	}
	m.things.add(t, "compression", options, fmt.Sprintf("alter %s %s set (%s)", kind, t.name, options))
}

func (m *mirror) sayAggregate(l dialect, a *tsdb.AggregateDefinition) {
	t := thing{"continuous aggregate", quote(a.View)}
	m.things.add(t, "", "", strings.Join(l.aggregate(a, false), " "))
	m.things.add(t, "query", strings.TrimSuffix(strings.TrimSpace(a.Query), ";"), "")
	m.things.add(t, "materialized_only", fmt.Sprint(a.MaterializedOnly),
		fmt.Sprintf("alter materialized view %s set (timescaledb.materialized_only = %t)", t.name, a.MaterializedOnly))
	m.things.add(t, "format", map[bool]string{false: "finalized", true: "old (finalized = false)"}[a.Partial], "")
	m.things.add(t, "granular refresh", fmt.Sprint(a.Granular), "")
	m.things.add(t, "interval of chunks", chunkInterval(a.Hypertable.Dimensions[0]), "")
	m.things.add(t, "index of buckets", fmt.Sprint(!a.NoBucketIndex), "")
	m.sayCompression(l, t, "view", a.Hypertable)
	for _, i := range a.Indexes {
		part := "index " + i.Definition
		if i.Name != "" {
			part = "index " + word(i.Name)
		}
		unique := ""
		if i.Unique {
			unique = "unique "
		}
		m.things.add(t, part, unique+i.Definition,
			fmt.Sprintf("create %sindex %s on %s %s", unique, word(i.Name), t.name, i.Definition))
	}
}

// sayJobs says which jobs there are, whether they are scheduled or not: several
// with the same definition are told apart by a number.
func (m *mirror) sayJobs(l dialect) {
	count := map[string]int{}
	for _, j := range m.catalogs.jobs {
		name, sql := nameOf(j), jobSQL(l, j)
		if !j.Policy() {
			name += " " + sql
		}
		count[name]++
		if count[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, count[name])
		}
		t := thing{"job", name}
		m.things.add(t, "", "", sql)
		m.things.add(t, "definition", sql, "")
	}
}

// nameOf is how a job is named on both sides.
func nameOf(j *tsdb.JobDefinition) string {
	if !j.Policy() {
		return quote(j.Proc)
	}
	if j.Of == nil {
		return j.Proc.Name
	}
	return j.Proc.Name + " of " + quote(*j.Of)
}

// jobSQL is the statement that adds a job, paused.
func jobSQL(l dialect, j *tsdb.JobDefinition) string {
	paused := *j
	paused.Scheduled = false
	if sql := l.job(&paused, true); len(sql) > 0 {
		return strings.Join(sql, " ")
	}
	return "none that a function adds"
}

// toBeResumed is the statement for the jobs that are paused on the target only.
func toBeResumed(l dialect, src, dst *mirror) string {
	scheduled := map[string]bool{}
	for _, j := range src.catalogs.jobs {
		if j.Scheduled {
			scheduled[nameOf(j)+jobSQL(l, j)] = true
		}
	}
	var ids []int32
	for _, j := range dst.catalogs.jobs {
		if !j.Scheduled && scheduled[nameOf(j)+jobSQL(l, j)] {
			ids = append(ids, j.ID)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	slices.Sort(ids)
	return l.resume(dst.catalogs.jobs, tsdb.JobsTable(dst.db), list(ids))
}

// counter is a sequence that gives columns their values.
type counter struct {
	name           string
	increment      int64
	tables, column []string
}

func (m *mirror) counters(ctx context.Context) ([]counter, error) {
	rows, err := m.Query(ctx, countersSQL, m.internals)
	if err != nil {
		return nil, m.Wrap(err, "list sequences")
	}
	cs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c counter, err error) {
		err = r.Scan(&c.name, &c.increment, &c.tables, &c.column)
		return c, err
	})
	return cs, m.Wrap(err, "list sequences")
}

// end is SQL for the greatest value of the columns; the least, for a sequence that
// goes down.
func (c *counter) end() string {
	fn := "max"
	if c.increment < 0 {
		fn = "min"
	}
	var each []string
	for i := range c.tables {
		each = append(each, fmt.Sprintf("select %s(%s)::numeric as v from %s", fn, c.column[i], c.tables[i]))
	}
	if len(each) == 1 {
		return strings.Replace(each[0], "::numeric as v", "", 1)
	}
	return fmt.Sprintf("select %s(v) from (%s) x", fn, strings.Join(each, " union all "))
}

// counters lists the sequences of the target whose next value is one that a column has
// already, or has passed.
func counters(ctx context.Context, src, dst *mirror) (diffs []*Difference, err error) {
	cs, err := dst.counters(ctx)
	if err != nil {
		return nil, err
	}
	next := "(select (last_value + case when is_called then %d else 0 end)::numeric from %s)"
	for _, c := range cs {
		var behind bool
		var value, end string
		sql := fmt.Sprintf("select coalesce(case when %[1]d > 0 then n <= e else n >= e end, false), n::text, "+
			"coalesce(e::text, '') from (select %[2]s as n, (%[3]s)::numeric as e) x",
			c.increment, fmt.Sprintf(next, c.increment, c.name), c.end())
		if err := dst.QueryRow(ctx, sql).Scan(&behind, &value, &end); err != nil {
			return nil, dst.Wrap(err, "sequence %s", c.name)
		}
		if !behind {
			continue
		}
		there := "none"
		if _, ok := src.things.traits[thing{"sequence", c.name}]; ok {
			err := src.QueryRow(ctx, "select "+fmt.Sprintf(next, c.increment, c.name)+"::text").Scan(&there)
			if err != nil {
				return nil, src.Wrap(err, "sequence %s", c.name)
			}
		}
		diffs = append(diffs, &Difference{V: task.Version, Kind: "difference", Object: "sequence " + c.name,
			Part: "next value", Source: there,
			Target: fmt.Sprintf("%s, while %s has %s already", value, columnsOf(c), end),
			Helps:  fmt.Sprintf("select setval('%s', (%s))", strings.ReplaceAll(c.name, "'", "''"), c.end())})
	}
	return diffs, nil
}

func columnsOf(c counter) string {
	var cs []string
	for i, t := range c.tables {
		cs = append(cs, t+"."+c.column[i])
	}
	return strings.Join(cs, ", ")
}
