package main

import (
	"fmt"
	"strconv"
)

// The contests of tables that are no hypertables on the source.
const (
	plain  = "a plain table, 3 slices"
	unread = "a plain table without an index, 20 slices"

	plainTable = `(time timestamptz not null, device_id int not null, a float8, b float8, c float8)`
	// In the order of time, but for a minute, as rows arrive.
	plainRows = `select timestamptz '2024-01-01' + i * (interval '1 day' * %[2]d / %[1]d) +
            random() * interval '1 minute',
        i %% 1000, random(), random(), random() from generate_series(0, %[1]d - 1) i`
)

// plainTables has the contests of a table that becomes a hypertable.
type plainTables struct{ *bench }

// plainData fills a table of the source that is no hypertable, of so many days.
func (p plainTables) plainData(name string, days int, more string) error {
	err := p.src.exec("drop table if exists " + name + "; " +
		"create table " + name + " " + plainTable + " with (autovacuum_enabled = off); " +
		"insert into " + name + " " + fmt.Sprintf(plainRows, days*p.rows, days) + "; " + more)
	if err == nil {
		err = p.src.exec("vacuum analyze " + name) // hint bits as well: not each for itself at its first reading
	}
	return err
}

// emptied makes the hypertable that the table fills, and no tasks.
func (p plainTables) emptied(name string) func() error {
	return func() error {
		return p.dst.exec("drop schema if exists __backfill cascade; drop table if exists " + name + "; " +
			table(name, plainTable, twoIndexes) + "checkpoint")
	}
}

func (p plainTables) staged(name string) func() error {
	return func() error {
		if err := p.emptied(name)(); err != nil {
			return err
		}
		return p.stage(name)
	}
}

// plainSource moves a table into a hypertable, as the manual has it, as psql does, and
// by bf.
func (p plainTables) plainSource() *contest {
	const name = "plain_indexed"
	tool, run := p.byLines(name, func() []string {
		return []string{"psql", "-Xqd", p.src.uri, "-c", `\copy (select * from ` + name + `) to stdout (format csv)`}
	})
	recipe := `\copy csv | ` + tool // of TimescaleDB's manual
	return &contest{name: plain, variants: []*variant{
		{peer: true, name: recipe, prepare: p.emptied(name), run: run},
		{peer: true, name: "psql | psql, binary, through the hypertable", prepare: p.emptied(name),
			run: func(m *meter) error {
				return m.pipe("", []string{"psql", "-Xqd", p.src.uri, "-c",
					"copy " + name + " to stdout (format binary)"},
					[]string{"psql", "-Xqd", p.dst.uri, "-c", "copy " + name + " from stdin (format binary)"})
			}},
		{name: "bf, 1 lane", prepare: p.staged(name), run: p.lanes(1)},
		{name: "bf, 2 lanes", prepare: p.staged(name), run: p.lanes(2)},
		{name: "bf-verify", run: p.verify},
	}, judge: func(c *contest) {
		one, two := c.variants[2], c.variants[3]
		p.check("plain table, one lane: target CPU against "+recipe, over(one, c.variants[0], target), 0.4)
		p.check("plain table, one lane: wall against psql | psql", over(one, c.variants[1], wall), 1)
		p.check("plain table, two lanes: wall against "+recipe, over(two, c.variants[0], wall), 1)
		p.check("peak memory of a lane of a plain table, MiB", max(one.median(memory), two.median(memory)), 64)
		p.check("peak memory of bf-verify of a plain table, MiB", c.variants[4].median(memory), 64)
	}}
}

// withoutAnyIndex maps a table that no index orders, and reads it by tasks.
func (p plainTables) withoutAnyIndex() *contest {
	const name = "plain_heap"
	return &contest{name: unread, variants: []*variant{
		{peer: true, name: "psql, copy of the table, binary", run: func(m *meter) error {
			return m.pipe("", []string{"psql", "-Xqd", p.src.uri, "-o", "/dev/null", "-c",
				"copy " + name + " to stdout (format binary)"})
		}},
		{name: "bf-stage", prepare: p.emptied(name), run: func(m *meter) error {
			return m.pipe("", p.planner(name))
		}},
		{name: "bf-dump of all tasks", prepare: p.staged(name), run: func(m *meter) error {
			before, err := p.blocksRead(name)
			if err == nil {
				err = m.pipeTo(nil, []string{"bf-chunks", "--target", p.dst.uri}, p.dump())
			}
			if err != nil {
				return err
			}
			p.src.settle()
			after, err := p.blocksRead(name)
			p.read = after - before
			return err
		}},
	}, judge: func(c *contest) {
		p.check("table without an index: times that its tasks read it", p.read, 1.3)
		p.check("table without an index: source CPU of bf-stage against one copy of the table",
			over(c.variants[1], c.variants[0], source), 0.6)
		p.check("table without an index: source CPU of its tasks against one copy of the table",
			over(c.variants[2], c.variants[0], source), 1.5)
		p.check("peak memory of bf-stage and bf-dump, MiB: table without an index",
			max(c.variants[1].median(memory), c.variants[2].median(memory)), 64)
	}}
}

// blocksRead is how often the server has read the table since it counts.
func (p plainTables) blocksRead(name string) (times float64, err error) {
	s, err := p.src.strings("select ((heap_blks_read + heap_blks_hit)::float8 / " +
		"(pg_relation_size(relid) / 8192))::text " +
		"from pg_statio_user_tables where relname = '" + name + "'")
	if err != nil || len(s) == 0 {
		return 0, fmt.Errorf("no statistics of %s: %w", name, err)
	}
	return strconv.ParseFloat(s[0], 64)
}
