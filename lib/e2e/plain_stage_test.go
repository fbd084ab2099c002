package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
)

// byRelation groups records by the relation that they read.
func byRelation(ts []*task.Task) map[string][]*task.Task {
	m := map[string][]*task.Task{}
	for _, t := range ts {
		m[t.Hypertable.Name] = append(m[t.Hypertable.Name], t)
	}
	return m
}

// TestPlainSource copies a database without TimescaleDB, as a role that may read it and
// nothing else: all that decides how a relation is read, side by side.
func TestPlainSource(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		const day = "chunk_time_interval => interval '1 day'"
		make := func(name, columns string) { // on the target
			p.dst.Exec(t, "create table "+name+" ("+columns+"); select create_hypertable('"+name+"', 'time', "+day+")")
		}
		rows := "'2024-01-01'::timestamptz + i * interval '2 minutes', i % 7, i from generate_series(0, 14399) i"
		for _, name := range []string{"indexed", "brin", "ordered", "zabbix", "devices"} {
			p.src.Exec(t, "create table "+name+" (time timestamptz not null, dev int, v int) "+
				"with (autovacuum_enabled = off)")
			make(name, "time timestamptz not null, dev int, v int")
		}
		p.src.Exec(t, `
            insert into indexed select `+rows+`; create index on indexed (time desc, dev);
            insert into brin select `+rows+`; create index on brin using brin (time);
            insert into ordered select `+rows+`;
            insert into zabbix select `+rows+`; create index on zabbix (dev, time);
            insert into devices select `+rows+` order by i % 7, i; create index on devices (time);
            insert into indexed values ('1970-01-05 12:00', 1, -1)`)
		p.source = p.src.Role(t, "bf_plain_reader")
		p.src.Exec(t, "alter database "+p.src.Name+" owner to postgres; "+
			"grant select on indexed, brin, ordered, zabbix, devices to bf_plain_reader")
		ts := byRelation(p.stage(t, "--until", "2024-01-20 12:00:00+00"))
		for name, want := range map[string]struct {
			by    string
			tasks int
		}{"indexed": {task.ByRange, 21}, "brin": {task.ByRange, 20}, "ordered": {task.ByBlocks, 20},
			"zabbix": {task.ByBlocks, 20}, "devices": {task.ByRange, 20}} {
			if n := len(ts[name]); n != want.tasks || ts[name][0].Scan.By != want.by {
				t.Errorf("%s: %d tasks by %s, want %d by %s", name, n, ts[name][0].Scan.By, want.tasks, want.by)
			}
		}
		for name, tasks := range ts { // of tables that nobody has analyzed
			var expected, size int64
			for _, tk := range tasks {
				expected += tk.Bytes
			}
			p.src.Query1(t, &size, "select pg_table_size('"+name+"')")
			if expected < size/2 || expected > size {
				t.Errorf("%s: about %d bytes expected of %d", name, expected, size)
			}
		}
		if r := p.lane(t); r.status != 0 {
			t.Fatalf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		for name := range ts {
			diff(t, name, sorted(t, p.src, "select * from "+name+" where time < '2024-01-20 12:00:00+00'"),
				sorted(t, p.dst, "select * from "+name))
		}
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) != 101 {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		if r := p.chunks(t, "--report"); strings.Contains(r, "--from") || !strings.Contains(r, "set the sequences") {
			t.Errorf("the report speaks of hypertables on the source, and not of sequences:\n%s", r)
		}
	})
}

// TestPlainDimensions copies every type of dimension from plain tables, half of them
// without an index, by the days of a target that has chunks already.
func TestPlainDimensions(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		for i, d := range dimensions {
			if d.name == "custom" || !d.has(t, p.dst) {
				continue
			}
			t.Run(d.name, func(t *testing.T) {
				name := "h_" + d.name
				p.src.Exec(t, "create table "+name+" (t "+d.column+", v int)")
				p.dst.Exec(t, "create table "+name+" (v int, t "+d.column+" not null);"+
					"select create_hypertable('"+name+"', 't', "+d.create+")")
				for v, value := range d.values {
					p.src.Exec(t, "insert into "+name+" values ($1::text::"+d.column+", $2)", value, v)
				}
				// By dual writes: what is in the range is replaced.
				p.dst.Exec(t, "insert into "+name+" values (-1, $1::text::"+d.column+")", d.values[len(d.values)-3])
				if i%2 == 0 {
					p.src.Exec(t, "create index on "+name+" (t)")
				}
				p.stage(t, "--filter", "public."+name, "--from="+d.from, "--until="+d.until)
				if r := p.lane(t); r.status != 0 {
					t.Fatalf("exit status %d: %s", r.status, r.stderr)
				}
				where := " where t >= '" + d.from + "' and t < '" + d.until + "'"
				if d.name == "uuid" {
					where = " where t >= '018cc4e5-3a00-7000-8000-000000000000' " +
						"and t < '018cca0b-c600-7000-8000-000000000000'"
				}
				p.same(t, "select t, v from "+name+where)
			})
		}
		if r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`); r.status != 0 {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// TestPlainShapes backfills what is no simple table: partitions, children, views,
// other names, other columns, beside a hypertable of the same source.
func TestPlainShapes(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPair(t, in)
		long := `"Old"."` + strings.Repeat("n", 62) + `"""`
		rows := "'2024-01-01'::timestamptz + i * interval '20 minutes', i from generate_series(0, 5759) i"
		p.src.Exec(t, `
            create table hyper (time timestamptz not null, v int); select create_hypertable('hyper', 'time');
            insert into hyper select `+rows+`;
            create table parts (time timestamptz not null, v int) partition by range (time);
            create table parts_01 partition of parts for values from ('2024-01-01') to ('2024-02-01')
                partition by hash (v);
            create table parts_01_0 partition of parts_01 for values with (modulus 2, remainder 0);
            create table parts_01_1 partition of parts_01 for values with (modulus 2, remainder 1);
            create table parts_02 partition of parts for values from ('2024-02-01') to ('2024-03-01');
            create table parts_default partition of parts default;
            insert into parts select `+rows+`; insert into parts values ('2023-06-01', -1);
            create table family (time timestamptz not null, v int, constraint family_v_check check (v > -10));
            create table child (more text, v int, time timestamptz not null, check (time >= '2024-02-01'),
                constraint family_v_check check (v > -10));
            alter table child inherit family;
            insert into family select `+rows+` where i < 2000;
            insert into child select 'x', i, '2024-02-01'::timestamptz + i * interval '1 hour'
                from generate_series(0, 700) i;
            create table behind (at timestamp, v varchar(5), gone int, made int generated always as (length(v)) stored);
            alter table behind drop column gone;
            insert into behind select '2024-01-01'::timestamp + i * interval '1 hour', i from generate_series(0, 999) i;
            create view shown as select at at time zone 'Europe/Vienna' as time, v, made as n from behind;
            create materialized view kept as select * from shown;
            create schema "Old";
            create table `+long+` (time timestamptz not null, n numeric(9, 3), i int generated always as identity);
            insert into `+long+` select '2024-01-01'::timestamptz + i * interval '1 hour', i / 7.0
                from generate_series(0, 99) i;
            create table wide (time timestamptz not null, doc text);
            alter table wide alter doc set storage external;
            insert into wide select '2024-01-01'::timestamptz + i * interval '1 hour', repeat(md5(i::text), 200)
                from generate_series(0, 99) i`)
		p.dst.Exec(t, `
            create table hyper (time timestamptz not null, v int); select create_hypertable('hyper', 'time');
            create table parts (v int, time timestamptz not null);
            select create_hypertable('parts', 'time', chunk_time_interval => interval '7 days');
            create table parts_02 (v int, time timestamptz not null); select create_hypertable('parts_02', 'time');
            create table family (v int, time timestamptz not null);
            select create_hypertable('family', 'time', chunk_time_interval => interval '7 days');
            select add_dimension('family', 'v', number_partitions => 4);
            insert into family select 1000000 + i, '2024-01-02'::timestamptz + i * interval '1 minute'
                from generate_series(0, 99) i;
            create table shown (time timestamptz not null, v text, n int); select create_hypertable('shown', 'time');
            create table kept (time timestamptz not null, v varchar(7), n int,
                m int generated always as (n + 1) stored);
            select create_hypertable('kept', 'time');
            create schema "New"; create table "New"."Table" (i int, time timestamptz not null, n numeric);
            select create_hypertable('"New"."Table"', 'time');
            create table wide (time timestamptz not null, doc text);
            select create_hypertable('wide', 'time', chunk_time_interval => interval '1 day')`)
		p.far(t)
		wantOutput(t, p.script(t, "backfill", "--until", "2024-03-15", "--parallelism", "2",
			"--map", long+`="New"."Table"`), 0)
		p.same(t, "select * from far")
		for _, name := range []string{"hyper", "parts", "family", "wide", "shown", "kept"} {
			columns := map[string]string{"wide": "time, doc", "shown": "time, v, n", "kept": "time, v, n"}[name]
			if columns == "" {
				columns = "time, v"
			}
			p.same(t, "select "+columns+" from "+name+" where time < '2024-03-15'")
		}
		diff(t, "map", sorted(t, p.src, "select time, n, i from "+long),
			sorted(t, p.dst, `select time, n, i from "New"."Table"`))
		var n int
		p.dst.Query1(t, &n, "select count(*) from parts_02")
		if n != 0 {
			t.Errorf("a partition was copied by itself: %d rows", n)
		}
		// Each slice became the chunk of its extent.
		got := p.dst.Rows(t, `select t.priority, t.dimensions from __backfill.task t
          where t.kind = 'slice' and not exists (
            select from _timescaledb_catalog.dimension_slice s
            join _timescaledb_catalog.dimension d on d.id = s.dimension_id
            join _timescaledb_catalog.hypertable h on h.id = d.hypertable_id
            where h.table_name = coalesce(t.into_name, t.hypertable_name)
              and s.range_start::text = t.dimensions->0->>'from' and s.range_end::text = t.dimensions->0->>'until')`)
		if len(got) > 0 {
			t.Errorf("slices that are no chunks: %q", got)
		}
		var bytes int64
		p.dst.Query1(t, &bytes, "select sum(est_bytes)::bigint from __backfill.task where hypertable_name = 'wide'")
		if bytes < 600000 {
			t.Errorf("wide: about %d bytes expected, TOAST is more", bytes)
		}
	})
}

// far is a foreign table of the source, whose rows are on the other server.
func (p *pair) far(t testing.TB) {
	t.Helper()
	p.dst.Exec(t, `create table far (time timestamptz not null, v int); select create_hypertable('far', 'time');
        create table far_rows (time timestamptz not null, v int);
        insert into far_rows select '2024-01-01'::timestamptz + i * interval '1 hour', i
            from generate_series(0, 999) i`)
	var there bool
	p.src.Query1(t, &there, "select exists (select from pg_available_extensions where name = 'postgres_fdw')")
	if !there {
		p.src.Exec(t, "create table far (time timestamptz not null, v int); insert into far values ('2024-01-01', 1)")
		return
	}
	c, err := pgx.ParseConfig(p.target)
	if err != nil {
		t.Fatal(err)
	}
	p.src.Exec(t, fmt.Sprintf(`create extension postgres_fdw schema public;
        create server there foreign data wrapper postgres_fdw options (host '%s', port '%d', dbname '%s');
        create user mapping for public server there options (user '%s', password 'none');
        create foreign table far (time timestamptz not null, v int) server there options (table_name 'far_rows')`,
		c.Host, c.Port, c.Database, c.User))
}

// plainRefusals are what bf-stage says, to which arguments, with which status.
var plainRefusals = []struct {
	status int
	want   string
	args   []string
}{
	{1, "3 rows have no time", []string{"--filter", `^public\.nulls$`}},
	{1, "3 rows have no time", []string{"--filter", `^public\.nulls_indexed$`}},
	{1, "hint: create index concurrently on \"public\".\"mixed\" (\"time\")", []string{"--filter", "mixed"}},
	{1, "using brin (\"time\")", []string{"--filter", "strange"}},
	{1, "public.strange is no ordinary table", []string{"--filter", "strange"}},
	{1, "column \"id\" exists only on the target and is an identity", []string{"--filter", "numbered"}},
	{1, "row-level security", []string{"--filter", "policed"}},
	{1, "has type timestamp without time zone on the source", []string{"--filter", "types"}},
	{1, "grant select on \"public\".\"closed_1\"", []string{"--filter", "closed"}},
	{2, "two sources for public.other", []string{"--map", "nulls=other", "--map", "mixed=other"}},
	{2, "public.nulls is given twice", []string{"--map", "nulls=other", "--map", "nulls=closed"}},
	{2, "not SOURCE=TARGET", []string{"--map", "nulls"}},
	{1, "public.nowhere is no hypertable", []string{"--map", "nulls=nowhere"}},
	{1, "there is no such table", []string{"--map", "nowhere=other"}},
	{2, "--scan is auto or any", []string{"--scan", "all"}},
}

// TestPlainRefusals: what cannot be staged is said, with what helps, and nothing is
// recorded.
func TestPlainRefusals(t *testing.T) {
	p := newPlain(t, newest(t))
	p.src.Exec(t, `
        create table nulls (time timestamptz, v int);
        insert into nulls select '2024-01-01'::timestamptz + i * interval '1 hour', i from generate_series(0, 99) i;
        insert into nulls values (null, 1), ('-infinity', 2), ('infinity', 3), (null, 4);
        create table nulls_indexed (like nulls); insert into nulls_indexed table nulls;
        create index on nulls_indexed (time);
        create table mixed (time timestamptz not null, pad text);
        select setseed(0.5);
        insert into mixed select '2024-01-01'::timestamptz + i * interval '1 minute', repeat('x', 400)
            from generate_series(0, 28799) i order by random();
        create table policed (time timestamptz not null, v int);
        insert into policed values ('2024-01-01', 1), ('2024-01-02', 2);
        create table types (time timestamp not null, v bigint, gone int);
        create table closed (time timestamptz not null) partition by range (time);
        create table closed_1 partition of closed default;
        insert into closed values ('2024-01-01');
        create table other (time timestamptz not null, v int);
        create table numbered (time timestamptz not null);
        create access method heap2 type table handler heap_tableam_handler;
        create table strange (time timestamptz not null, pad text) using heap2;
        insert into strange select '2024-01-01'::timestamptz + i * interval '1 minute', repeat('x', 400)
            from generate_series(0, 28799) i`)
	for _, name := range []string{"nulls", "nulls_indexed", "policed", "other"} {
		p.dst.Exec(t, "create table "+name+" (time timestamptz not null, v int); "+
			"select create_hypertable('"+name+"', 'time', chunk_time_interval => interval '1 day')")
	}
	p.dst.Exec(t, `
        create table numbered (time timestamptz not null, id int generated always as identity);
            select create_hypertable('numbered', 'time');
        create table mixed (time timestamptz not null, pad text);
        select create_hypertable('mixed', 'time', chunk_time_interval => interval '1 day');
        create table strange (time timestamptz not null, pad text);
        select create_hypertable('strange', 'time', chunk_time_interval => interval '1 day');
        create table closed (time timestamptz not null); select create_hypertable('closed', 'time');
        create table types (time timestamptz not null, v int); select create_hypertable('types', 'time')`)
	// A role that may read and nothing else.
	p.source = p.src.Role(t, "bf_plain_reader")
	p.src.Exec(t, `alter database `+p.src.Name+` owner to postgres;
        grant select on nulls, nulls_indexed, mixed, policed, types, closed, other, numbered, strange
            to bf_plain_reader;
        alter table policed enable row level security;
        create policy half on policed for select using (v = 1)`)
	stage := func(args ...string) result {
		args = append([]string{"--source", p.source, "--target", p.target, "--until", "2024-02-01"}, args...)
		return p.run(t, "", "bf-stage", args...)
	}
	for _, c := range plainRefusals {
		r := stage(c.args...)
		if r.status != c.status || r.stdout != "" || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%q: exit status %d, want %d and %q\n%s", c.args, r.status, c.status, c.want, r.stderr)
		}
	}
	var there bool
	if p.dst.Query1(t, &there, "select to_regclass('__backfill.task') is not null"); there {
		t.Error("something was recorded")
	}
	r := p.run(t, "", "bf-stage", "--source", p.source, "--until", "2024-02-01")
	if r.status != 2 || !strings.Contains(r.stderr, "give --target as well") {
		t.Errorf("without a target: exit status %d\n%s", r.status, r.stderr)
	}
	for _, name := range []string{"nulls", "nulls_indexed"} {
		r := stage("--filter", `^public\.`+name+"$", "--skip-null-times")
		if r.status != 0 || !strings.Contains(r.stderr, "3 rows have no time") {
			t.Errorf("%s: exit status %d\n%s", name, r.status, r.stderr)
		}
	}
	r = stage("--filter", "mixed", "--scan", "any")
	if r.status != 0 || !strings.Contains(r.stderr, "all tasks together will read it") {
		t.Errorf("--scan any: exit status %d\n%s", r.status, r.stderr)
	}
	if r := p.lane(t); r.status != 0 {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
	p.same(t, "select * from mixed")
	for _, name := range []string{"nulls", "nulls_indexed"} {
		p.same(t, "select * from "+name+" where time between '2024-01-01' and '2025-01-01'")
	}
}
