package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
)

// values are pairs that differ, though many are equal as their type sees it: a
// hash that follows equality would miss them.
var values = []struct{ typ, a, b string }{
	{"bool", "true", "false"}, {`"char"`, "x", "y"}, {"smallint", "1", "2"}, {"int", "1", "-1"},
	{"bigint", "9223372036854775807", "9223372036854775806"},
	{"real", "1.5", "NaN"}, {"float8", "1.7976931348623157e308", "Infinity"}, {"float8", "0.1", "0.10000000000000002"},
	{"numeric", "1.0", "1.00"}, {"numeric", "NaN", "0"}, {"numeric(10,2)", "1.5", "1.51"}, {"money", "12.50", "12.51"},
	{"text", "a", "A"}, {"text", "", "NULL"}, {"varchar(10)", "a", "a "}, {"char(5)", "a", "b"}, {"bpchar", "a", "a  "},
	{"name", "a", "b"}, {"bytea", `\x00`, `\x0000`},
	{"text collate anycase", "a", "A"}, {"text[] collate anycase", "{a}", "{A}"},
	{"json", `{"a":1}`, `{"a": 1}`}, {"jsonb", `{"a":1.0}`, `{"a":1.00}`}, {"xml", "<a/>", "<a></a>"},
	{"jsonpath", "$.a", "$.b"},
	{"point", "(1,2)", "(1,3)"}, {"box", "(1,1),(0,0)", "(2,1),(0,0)"}, {"circle", "<(0,0),1>", "<(1,0),1>"},
	{"mood", "sad", "ok"}, {"mood[]", "{sad}", "{ok}"}, {"positive", "1", "2"}, {"pair", "(1,x)", "(1,X)"},
	{"pair[]", `{"(1,x)"}`, `{"(2,x)"}`},
	{"int4range", "[1,2)", "[1,3)"}, {"numrange", "[1.0,2]", "[1.00,2]"},
	{"int4multirange", "{[1,2)}", "{[1,2),[5,6)}"},
	{"interval", "1 day", "24 hours"}, {"interval[]", "{1 day}", "{24 hours}"}, {"interval(3)", "1.5 s", "1.501 s"},
	{"interval day to second(3)[]", "{1.5 s}", "{1.501 s}"}, {"intervals.name", "a", "b"},
	{"numeric(10,2)[]", "{1.5}", "{1.51}"}, {"timestamp(3)[]", "{2020-01-01}", "{2020-01-02}"},
	{"tstzrange[]", "{\"[2020-01-01,)\"}", "{\"(2020-01-01,)\"}"}, {"date", "2020-01-01", "infinity"},
	{"time", "10:00", "10:00:00.000001"}, {"timetz", "10:00+00", "11:00+01"},
	{"timestamp", "2020-01-01", "-infinity"}, {"timestamptz", "2020-01-01", "2020-01-01 00:00:00.000001"},
	{"uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"},
	{"inet", "10.0.0.1/8", "10.0.0.1"}, {"cidr", "10.0.0.0/8", "10.0.0.0/9"},
	{"macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:04"},
	{"macaddr8", "08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06"},
	{"bit(3)", "101", "100"}, {"varbit", "1", "10"}, {"tsvector", "a", "b"}, {"tsquery", "a", "a & b"},
	{"pg_lsn", "0/1", "0/2"}, {"oid", "1", "2"}, {"regclass", "pg_class", "pg_type"},
	{"tid", "(1,1)", "(1,2)"}, {"xid8", "1", "2"}, {"oidvector", "1 2", "2 1"}, {"int2vector", "1 2", "2 1"},
	{"int[]", "{1,2}", "[0:1]={1,2}"}, {"int[]", "{1,2,3,4}", "{{1,2},{3,4}}"}, {"int[]", "{NULL}", "{0}"},
	{"float8[]", "{1}", "{2}"}, {"numeric[]", "{1.0}", "{1.00}"}, {"text[]", "{a,b}", `{"a,b"}`},
	{"json[]", "{1}", "{1,2}"},
}

// TestVerifyTypes has one chunk per type: all are equal after a copy, by either
// method and whatever the version of the other side, and each is found to
// differ after its value has been changed into the other one.
func TestVerifyTypes(t *testing.T) {
	testdb.EachMove(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.dst.Exec(t, "create type other as enum ('a'); create table of_other (o other)") // so that OIDs differ
		p.both(t, `create type mood as enum ('sad', 'ok'); create domain positive as int check (value > 0);
            create type pair as (a int, b text); create schema intervals; create domain intervals.name as text;
                create collation anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
		columns := ""
		for i, v := range values {
			columns += fmt.Sprintf(", c%d %s", i, v.typ)
		}
		p.both(t, "create table v (time int not null"+columns+
			", twice float8 generated always as (time * 2) stored); "+
			"select create_hypertable('v', 'time', chunk_time_interval => 10)")
		literal := func(s string) string {
			if s == "NULL" {
				return s
			}
			return "'" + strings.ReplaceAll(s, "'", "''") + "'"
		}
		set := func(db *testdb.DB, value func(i int) string) {
			for i, v := range values {
				sql := fmt.Sprintf("update v set c%d = %s::%s where time = %d", i, literal(value(i)),
					strings.TrimSuffix(v.typ, " collate anycase"), i*10)
				db.Exec(t, sql)
			}
		}
		p.src.Exec(t, fmt.Sprintf("insert into v(time) select i * 10 from generate_series(0, %d) i", len(values)-1))
		set(p.src, func(i int) string { return values[i].a })
		p.stage(t, "--until", "100000")
		p.copy(t)
		want := fmt.Sprintf("[verified:%d]", len(values))
		if s := statuses(p.verify(t, 0)); s != want {
			t.Fatalf("rows: %s", s)
		}
		if s := statuses(p.verify(t, 0, "--all", "--method", "summary")); s != want {
			t.Fatalf("summary: %s", s)
		}
		set(p.dst, func(i int) string { return values[i].b })
		for _, r := range p.verify(t, 3, "--all") {
			i := len(values) - int(r.Task) // tasks are numbered newest first
			if v := values[i]; r.Status != task.Differs {
				t.Errorf("%s: %s and %s: %s", v.typ, v.a, v.b, r.Status)
			} else if n := len(r.Differences); n == 0 ||
				slices.ContainsFunc(r.Differences, func(d task.Difference) bool {
					return d.Column != fmt.Sprintf("c%d", i)
				}) {
				t.Errorf("%s: %s and %s: %+v", v.typ, v.a, v.b, r.Differences)
			}
		}
	})
}

// TestVerifyExchanged: what leaves every column with the same values as before
// is found by its rows, and not by count, min, max and sum, which promise less.
func TestVerifyExchanged(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, "create table l (time int not null, dev int, a float8, b float8, n numeric, x text); "+
			"select create_hypertable('l', 'time', chunk_time_interval => 10)")
		p.src.Exec(t, `insert into l select i, i % 3, i, -i - 1, case when i % 4 > 0 then i / 2.0 end, 'x' || i % 5
            from generate_series(0, 79) i;
            insert into l select * from l where time in (70, 71)`)
		p.stage(t, "--until", "1000")
		p.copy(t)
		if s := statuses(p.verify(t, 0)); s != "[verified:8]" {
			t.Fatal(s)
		}
		const pair = "from l o where l.time / 10 = %[1]d and o.time / 10 = %[1]d and l.time <> o.time " +
			"and l.time %% 10 in (4, 5) and o.time %% 10 in (4, 5)"
		for n, sql := range []string{
			"update l set a = o.a " + pair,                  // a value exchanged between two rows
			"update l set n = o.n " + pair,                  // null and a value
			"update l set a = b, b = a where time = %[1]d2", // two columns of a row
			// a column rotated
			"update l set x = o.x from l o where l.time / 10 = %[1]d and o.time = %[1]d0 + (l.time + 1) %% 10",
			// two columns exchanged
			"update l set dev = o.dev, n = o.n " + pair,
			// nothing
			"create table z as select * from l where time / 10 = %[1]d order by x; " +
				"delete from l where time / 10 = %[1]d; insert into l select * from z",
			// a row doubled, one dropped
			"delete from l where time = %[1]d3; insert into l select * from l where time = %[1]d5",
			// of rows that are there twice
			"delete from l where time = 70 and ctid = (select min(ctid) from l where time = 70); insert into l " +
				"select * from l where time = 71 limit 1 /* %[1]d */",
		} {
			p.dst.Exec(t, fmt.Sprintf(sql, n))
		}
		differing := func(m map[string]*task.Result) (chunks []int64) {
			for _, r := range m {
				if r.Status == task.Differs {
					chunks = append(chunks, 8-r.Task) // tasks are numbered newest first
				}
			}
			slices.Sort(chunks)
			return chunks
		}
		want := []int64{0, 1, 2, 3, 4, 6, 7}
		if got := differing(p.verify(t, 3, "--all")); !slices.Equal(got, want) {
			t.Errorf("by rows differ %v, not %v", got, want)
		}
		halves := p.run(t, p.ok(t, p.chunks(t, "--done"), "bf-verify", "--source", p.source, "-"), "bf-verify",
			"--target", p.target)
		if got := differing(byChunk(t, halves.stdout)); halves.status != 3 || !slices.Equal(got, want) {
			t.Errorf("by halves differ %v, not %v", got, want)
		}
		want = []int64{2, 6, 7} // 2: a and b have other values than before
		if got := differing(p.verify(t, 3, "--all", "--method", "summary")); !slices.Equal(got, want) {
			t.Errorf("by summary differ %v, not %v", got, want)
		}
	})
}

// TestVerifyEncoding: the source is not in UTF-8; all that is printed, sorted
// and hashed there has to come out the same.
func TestVerifyEncoding(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	name := p.src.Name + "_latin1"
	p.src.Exec(t, "create database "+name+" encoding 'LATIN1' locale 'C' template template0")
	t.Cleanup(func() { p.src.Exec(t, "drop database "+name+" with (force)") })
	p.source = strings.Replace(p.src.ConnString, "/"+p.src.Name, "/"+name, 1)
	const schema = "create type mood as enum ('é'); " +
		"create table l (time int not null, a text, b varchar(5), c char(5), d text[], e jsonb, f mood, g name); " +
		"select create_hypertable('l', 'time', chunk_time_interval => 10)"
	p.dst.Exec(t, schema)
	conn, err := pgx.Connect(t.Context(), p.source)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"set client_encoding = utf8", "set client_min_messages = error",
		"create extension timescaledb version '" + in.Version + "'", schema,
		`insert into l select i, chr(200 + i) || i, 'ö', 'ä', '{é,ß}', '{"ü": "é"}', 'é', 'ñ' ` +
			`from generate_series(1, 15) i; insert into l values (16, repeat('ü', 500))`} {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.stage(t, "--until", "100")
	p.copy(t)
	for _, method := range []string{"rows", "summary"} {
		if s := statuses(p.verify(t, 0, "--all", "--method", method)); s != "[verified:2]" {
			t.Errorf("%s: %s", method, s)
		}
		kept := p.ok(t, p.chunks(t, "--done"), "bf-verify", "--source", p.source, "--method", method, "-")
		if r := p.run(t, kept, "bf-verify", "--target", p.target, "-"); r.status != 0 {
			t.Errorf("%s, split: %s", method, r.stderr)
		}
	}
	p.dst.Exec(t, "update l set d = '{é,ss}' where time = 3")
	if s := statuses(p.verify(t, 3, "--all")); s != "[differs:1 verified:1]" {
		t.Errorf("changed: %s", s)
	}
}
