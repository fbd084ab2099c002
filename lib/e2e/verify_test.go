package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/verify"

	"github.com/jackc/pgx/v5"
)

// verify runs bf-verify on both sides and returns its results by chunk.
func (p *pair) verify(t testing.TB, status int, args ...string) map[string]*task.Result {
	t.Helper()
	r := p.run(t, "", "bf-verify", append([]string{"--source", p.source, "--target", p.target}, args...)...)
	if r.status != status {
		t.Fatalf("bf-verify %q: exit status %d, not %d\n%s%s", args, r.status, status, r.stderr, r.stdout)
	}
	return byChunk(t, r.stdout)
}

func byChunk(t testing.TB, out string) map[string]*task.Result {
	t.Helper()
	m := map[string]*task.Result{}
	for _, r := range results(t, out) {
		if m[r.Chunk.Name] != nil {
			t.Errorf("two results of chunk %s", r.Chunk.Name)
		}
		m[r.Chunk.Name] = r
	}
	return m
}

func statuses(m map[string]*task.Result) string {
	count := map[task.Status]int{}
	for _, r := range m {
		count[r.Status]++
	}
	return strings.TrimPrefix(fmt.Sprint(count), "map")
}

const readings = `
    create table readings (time timestamptz not null, dev int not null, temp float8, n numeric, note text, primary key (dev, time));
    select create_hypertable('readings', 'time', chunk_time_interval => interval '1 day')`

// fill makes days chunks of 1440 rows each on the source and copies them.
func (p *pair) fill(t testing.TB, days int) {
	t.Helper()
	p.both(t, readings)
	p.src.Exec(t, fmt.Sprintf(`insert into readings select '2020-01-01 00:00+0'::timestamptz + i * interval '1 minute', i %% 7, sqrt(i), i / 2.0, 'note ' || i
        from generate_series(0, %d) i`, days*1440-1))
	p.stage(t, "--until", "2021-01-01")
	p.copy(t)
}

func TestVerify(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.fill(t, 5)
		var temp int64
		p.dst.Query1(t, &temp, "select sum(temp_files) from pg_stat_database")

		if got := statuses(p.verify(t, 0)); got != "[verified:5]" {
			t.Fatalf("after the copy: %s", got)
		}
		if got := p.verify(t, 0); len(got) != 0 {
			t.Errorf("what is verified was verified again: %s", statuses(got))
		}
		if got := statuses(p.verify(t, 0, "--all", "--method", "summary", "--parallelism", "2")); got != "[verified:5]" {
			t.Errorf("--method summary: %s", got)
		}
		var marked int
		p.dst.Query1(t, &marked, "select count(*) from __backfill.task where upper(verified) <= now() and lower(verified) > upper(worked) and verify_message like 'equal: 1440 rows%'")
		if marked != 5 {
			t.Errorf("%d tasks are marked as verified, not 5", marked)
		}

		// One value, one row too many, one missing; one that is equal but not
		// the same; one chunk dropped.
		p.dst.Exec(t, `set timezone = utc;
            update readings set temp = temp + 1 where time = '2020-01-01 00:05';
            insert into readings values ('2020-01-02 00:00:30', 1, 1, 1, 'new');
            delete from readings where time in ('2020-01-02 00:10', '2020-01-02 00:11');
            update readings set n = round(n, 1) where time = '2020-01-03 00:01';
            select drop_chunks('readings', newer_than => '2020-01-05'::timestamptz)`)
		got := p.verify(t, 3, "--all")
		if s := statuses(got); s != "[differs:3 gone:1 verified:1]" {
			t.Fatalf("after changes: %s", s)
		}
		chunk := func(day string) *task.Result {
			var name string
			p.src.Query1(t, &name, "select tableoid::regclass::text from readings where time = $1::timestamptz", day+" 12:00+0")
			return got[strings.TrimPrefix(name, "_timescaledb_internal.")]
		}
		for day, want := range map[string][]task.Difference{
			"2020-01-01": {{What: "value", Column: "temp", Key: "(dev=5, time=2020-01-01 00:05:00+00)", Source: "2.23606797749979", Target: "3.23606797749979"}},
			"2020-01-02": {
				{What: "rows", Source: "1440", Target: "1439"},
				{What: "row", Key: "(dev=1, time=2020-01-02 00:00:30+00)", Source: "absent", Target: "present"},
				{What: "row", Key: "(dev=1, time=2020-01-02 00:10:00+00)", Source: "present", Target: "absent"},
				{What: "row", Key: "(dev=2, time=2020-01-02 00:11:00+00)", Source: "present", Target: "absent"}},
			"2020-01-03": {{What: "value", Column: "n", Key: "(dev=4, time=2020-01-03 00:01:00+00)", Source: "1440.5000000000000000", Target: "1440.5"}},
			"2020-01-05": {{What: "rows", Source: "1440", Target: "0"}},
		} {
			r := chunk(day)
			for _, w := range want {
				if !slices.Contains(r.Differences, w) {
					t.Errorf("%s: %+v is missing in %+v", day, w, r.Differences)
				}
			}
			var message *string
			var verified bool
			p.dst.Query1(t, &message, "select verify_message from __backfill.task where priority = $1", r.Task)
			p.dst.Query1(t, &verified, "select verified is not null from __backfill.task where priority = $1", r.Task)
			if message == nil || *message != r.Message || verified {
				t.Errorf("%s: marked with %v, verified %v; the result says %q", day, message, verified, r.Message)
			}
		}
		// Only what is not verified, without --all; the split gives the same verdicts.
		if s := statuses(p.verify(t, 3)); s != "[differs:3 gone:1]" {
			t.Errorf("again: %s", s)
		}
		split := p.run(t, p.ok(t, p.chunks(t, "--done"), "bf-verify", "--source", p.source, "-"), "bf-verify", "--target", p.target, "-")
		if s := statuses(byChunk(t, split.stdout)); s != "[differs:3 gone:1 verified:1]" || split.status != 3 {
			t.Errorf("split: %s, exit status %d\n%s", s, split.status, split.stderr)
		}
		// Loading again puts it right.
		p.load(t, p.dump(t, p.chunks(t, "--done")), "--force")
		if s := statuses(p.verify(t, 0)); s != "[verified:5]" {
			t.Errorf("loaded again: %s", s)
		}
		// What the source has dropped cannot be compared, and is no error.
		p.src.Exec(t, "select drop_chunks('readings', older_than => '2020-01-02'::timestamptz)")
		if s := statuses(p.verify(t, 0, "--all")); s != "[gone:1 verified:4]" {
			t.Errorf("dropped on the source: %s", s)
		}
		var after int64
		p.dst.Exec(t, "select pg_stat_clear_snapshot()")
		p.dst.Query1(t, &after, "select sum(temp_files) from pg_stat_database")
		if after != temp {
			t.Errorf("%d temporary files", after-temp)
		}
	})
}

// values are pairs that differ, though many are equal as their type sees it: a
// hash that follows equality would miss them.
var values = []struct{ typ, a, b string }{
	{"bool", "true", "false"}, {`"char"`, "x", "y"}, {"smallint", "1", "2"}, {"int", "1", "-1"}, {"bigint", "9223372036854775807", "9223372036854775806"},
	{"real", "1.5", "NaN"}, {"float8", "1.7976931348623157e308", "Infinity"}, {"float8", "0.1", "0.10000000000000002"},
	{"numeric", "1.0", "1.00"}, {"numeric", "NaN", "0"}, {"numeric(10,2)", "1.5", "1.51"}, {"money", "12.50", "12.51"},
	{"text", "a", "A"}, {"text", "", "NULL"}, {"varchar(10)", "a", "a "}, {"char(5)", "a", "b"}, {"bpchar", "a", "a  "}, {"name", "a", "b"}, {"bytea", `\x00`, `\x0000`},
	{"text collate anycase", "a", "A"}, {"text[] collate anycase", "{a}", "{A}"},
	{"json", `{"a":1}`, `{"a": 1}`}, {"jsonb", `{"a":1.0}`, `{"a":1.00}`}, {"xml", "<a/>", "<a></a>"}, {"jsonpath", "$.a", "$.b"},
	{"point", "(1,2)", "(1,3)"}, {"box", "(1,1),(0,0)", "(2,1),(0,0)"}, {"circle", "<(0,0),1>", "<(1,0),1>"},
	{"mood", "sad", "ok"}, {"mood[]", "{sad}", "{ok}"}, {"positive", "1", "2"}, {"pair", "(1,x)", "(1,X)"}, {"pair[]", `{"(1,x)"}`, `{"(2,x)"}`},
	{"int4range", "[1,2)", "[1,3)"}, {"numrange", "[1.0,2]", "[1.00,2]"}, {"int4multirange", "{[1,2)}", "{[1,2),[5,6)}"},
	{"interval", "1 day", "24 hours"}, {"interval[]", "{1 day}", "{24 hours}"}, {"interval(3)", "1.5 s", "1.501 s"}, {"interval day to second(3)[]", "{1.5 s}", "{1.501 s}"}, {"intervals.name", "a", "b"},
	{"numeric(10,2)[]", "{1.5}", "{1.51}"}, {"timestamp(3)[]", "{2020-01-01}", "{2020-01-02}"}, {"tstzrange[]", "{\"[2020-01-01,)\"}", "{\"(2020-01-01,)\"}"}, {"date", "2020-01-01", "infinity"}, {"time", "10:00", "10:00:00.000001"}, {"timetz", "10:00+00", "11:00+01"},
	{"timestamp", "2020-01-01", "-infinity"}, {"timestamptz", "2020-01-01", "2020-01-01 00:00:00.000001"},
	{"uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"}, {"inet", "10.0.0.1/8", "10.0.0.1"}, {"cidr", "10.0.0.0/8", "10.0.0.0/9"},
	{"macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:04"}, {"macaddr8", "08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06"},
	{"bit(3)", "101", "100"}, {"varbit", "1", "10"}, {"tsvector", "a", "b"}, {"tsquery", "a", "a & b"}, {"pg_lsn", "0/1", "0/2"}, {"oid", "1", "2"}, {"regclass", "pg_class", "pg_type"},
	{"tid", "(1,1)", "(1,2)"}, {"xid8", "1", "2"}, {"oidvector", "1 2", "2 1"}, {"int2vector", "1 2", "2 1"},
	{"int[]", "{1,2}", "[0:1]={1,2}"}, {"int[]", "{1,2,3,4}", "{{1,2},{3,4}}"}, {"int[]", "{NULL}", "{0}"}, {"float8[]", "{1}", "{2}"}, {"numeric[]", "{1.0}", "{1.00}"}, {"text[]", "{a,b}", `{"a,b"}`}, {"json[]", "{1}", "{1,2}"},
}

// TestVerifyTypes has one chunk per type: all are equal after a copy, by either
// method and whatever the version of the other side, and each is found to
// differ after its value has been changed into the other one.
func TestVerifyTypes(t *testing.T) {
	testdb.EachMove(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.dst.Exec(t, "create type other as enum ('a'); create table of_other (o other)") // so that OIDs differ
		p.both(t, `create type mood as enum ('sad', 'ok'); create domain positive as int check (value > 0); create type pair as (a int, b text); create schema intervals; create domain intervals.name as text;
                create collation anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
		columns := ""
		for i, v := range values {
			columns += fmt.Sprintf(", c%d %s", i, v.typ)
		}
		p.both(t, "create table v (time int not null"+columns+", twice float8 generated always as (time * 2) stored); select create_hypertable('v', 'time', chunk_time_interval => 10)")
		literal := func(s string) string {
			if s == "NULL" {
				return s
			}
			return "'" + strings.ReplaceAll(s, "'", "''") + "'"
		}
		set := func(db *testdb.DB, value func(i int) string) {
			for i, v := range values {
				sql := fmt.Sprintf("update v set c%d = %s::%s where time = %d", i, literal(value(i)), strings.TrimSuffix(v.typ, " collate anycase"), i*10)
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
			} else if n := len(r.Differences); n == 0 || slices.ContainsFunc(r.Differences, func(d task.Difference) bool { return d.Column != fmt.Sprintf("c%d", i) }) {
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
		p.both(t, "create table l (time int not null, dev int, a float8, b float8, n numeric, x text); select create_hypertable('l', 'time', chunk_time_interval => 10)")
		p.src.Exec(t, `insert into l select i, i % 3, i, -i - 1, case when i % 4 > 0 then i / 2.0 end, 'x' || i % 5 from generate_series(0, 79) i;
            insert into l select * from l where time in (70, 71)`)
		p.stage(t, "--until", "1000")
		p.copy(t)
		if s := statuses(p.verify(t, 0)); s != "[verified:8]" {
			t.Fatal(s)
		}
		const pair = "from l o where l.time / 10 = %[1]d and o.time / 10 = %[1]d and l.time <> o.time and l.time %% 10 in (4, 5) and o.time %% 10 in (4, 5)"
		for n, sql := range []string{
			"update l set a = o.a " + pair,                  // a value exchanged between two rows
			"update l set n = o.n " + pair,                  // null and a value
			"update l set a = b, b = a where time = %[1]d2", // two columns of a row
			"update l set x = o.x from l o where l.time / 10 = %[1]d and o.time = %[1]d0 + (l.time + 1) %% 10",                                                      // a column rotated
			"update l set dev = o.dev, n = o.n " + pair,                                                                                                             // two columns exchanged
			"create table z as select * from l where time / 10 = %[1]d order by x; delete from l where time / 10 = %[1]d; insert into l select * from z",            // nothing
			"delete from l where time = %[1]d3; insert into l select * from l where time = %[1]d5",                                                                  // a row doubled, one dropped
			"delete from l where time = 70 and ctid = (select min(ctid) from l where time = 70); insert into l select * from l where time = 71 limit 1 /* %[1]d */", // of rows that are there twice
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
		halves := p.run(t, p.ok(t, p.chunks(t, "--done"), "bf-verify", "--source", p.source, "-"), "bf-verify", "--target", p.target)
		if got := differing(byChunk(t, halves.stdout)); halves.status != 3 || !slices.Equal(got, want) {
			t.Errorf("by halves differ %v, not %v", got, want)
		}
		want = []int64{2, 6, 7} // 2: a and b have other values than before
		if got := differing(p.verify(t, 3, "--all", "--method", "summary")); !slices.Equal(got, want) {
			t.Errorf("by summary differ %v, not %v", got, want)
		}
	})
}

// TestVerifyRange compares the staged range only, whatever stands around it,
// and through the hypertable where the target is cut differently.
func TestVerifyRange(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		for _, cut := range []string{"create_hypertable('r', 'time', chunk_time_interval => 100)", "create_hypertable('r', 'time', 'dev', 3, chunk_time_interval => 70)"} {
			p := newPair(t, v)
			p.both(t, "create table r (time bigint not null, dev int not null, x text)")
			p.src.Exec(t, "select create_hypertable('r', 'time', chunk_time_interval => 100); insert into r select i, i % 5, 'x' || i from generate_series(0, 299) i")
			p.dst.Exec(t, "select "+cut+"; insert into r values (20, 1, 'before'), (250, 1, 'behind')")
			p.stage(t, "--from", "50", "--until", "250")
			p.copy(t)
			if s := statuses(p.verify(t, 0)); s != "[verified:3]" {
				t.Errorf("%s: %s", cut, s)
			}
			p.dst.Exec(t, "update r set x = 'y' where time in (49, 250)")
			if s := statuses(p.verify(t, 0, "--all", "--method", "summary")); s != "[verified:3]" {
				t.Errorf("%s: changed around the range: %s", cut, s)
			}
			p.dst.Exec(t, "update r set x = 'y' where time in (50, 249)")
			if s := statuses(p.verify(t, 3, "--all")); s != "[differs:2 verified:1]" {
				t.Errorf("%s: changed at its ends: %s", cut, s)
			}
		}
	})
}

// TestVerifyRecords is about what is given to bf-verify, by argument and on
// stdin, and about summaries that are kept.
func TestVerifyRecords(t *testing.T) {
	p := newPair(t, testdb.Pair{Source: testdb.Installs(t)[0], Target: testdb.Installs(t)[0]})
	p.fill(t, 3)
	recs := lines(p.chunks(t, "--all"))
	if got := p.verify(t, 0, recs[0], recs[2]); statuses(got) != "[verified:2]" {
		t.Errorf("two records: %s", statuses(got))
	}
	if got := p.verify(t, 0); len(got) != 1 {
		t.Errorf("the rest: %s", statuses(got))
	}
	for _, method := range []string{"rows", "summary"} {
		kept := p.ok(t, strings.Join(recs, "\n"), "bf-verify", "--source", p.source, "--method", method, "-p", "2", "-")
		var s verify.Summary
		if err := json.Unmarshal([]byte(lines(kept)[0]), &s); err != nil || s.Rows != 1440 || s.Method != verify.Method(method) || len(s.Columns) != 5 || s.Columns[0].Max == nil {
			t.Errorf("%v: %s", err, lines(kept)[0])
		}
		r := p.run(t, kept, "bf-verify", "--target", p.target)
		if s := statuses(byChunk(t, r.stdout)); r.status != 0 || s != "[verified:3]" {
			t.Errorf("kept summaries: exit status %d, %s\n%s", r.status, s, r.stderr)
		}
		p.src.Exec(t, "update readings set temp = 0") // no matter: the summary was made before
		r = p.run(t, kept, "bf-verify", "--target", p.target, "-")
		if r.status != 0 {
			t.Errorf("the source has changed since: exit status %d\n%s", r.status, r.stderr)
		}
		p.src.Exec(t, "update readings set temp = sqrt(extract(epoch from time - '2020-01-01 00:00+0') / 60)")
		p.dst.Exec(t, "update readings set temp = temp + 100 where dev = 3")
		r = p.run(t, kept, "bf-verify", "--target", p.target, "-")
		if r.status != 3 || !strings.Contains(r.stdout, `"what":"sum","column":"temp"`) {
			t.Errorf("the target has changed: exit status %d\n%s", r.status, r.stdout)
		}
		p.dst.Exec(t, "update readings set temp = sqrt(extract(epoch from time - '2020-01-01 00:00+0') / 60)")
	}
	// A pending task is passed over.
	p.dst.Exec(t, "update __backfill.task set worked = null, verified = null where priority = 1")
	if got := p.verify(t, 0, recs...); statuses(got) != "[skipped:1 verified:2]" {
		t.Errorf("one is pending: %s", statuses(got))
	}
	// A snapshot that is no longer there.
	p.dst.Exec(t, "update __backfill.task set worked = tstzrange(now(), now(), '[]'), snapshot = '00000003-0000001B-1'")
	for _, r := range p.verify(t, 0, "--all") {
		if !strings.Contains(r.Message, "source as it is now") {
			t.Errorf("message %q does not say what was compared", r.Message)
		}
	}
	stray := strings.Replace(recs[0], `"task":`, `"task":9`, 1)
	for _, c := range []struct {
		stdin  string
		args   []string
		status int
		want   string
	}{
		{"", []string{"--source", p.source, "--target", p.target, "--method", "guess"}, 2, "rows, values or summary"},
		{"", []string{"--source", p.source, "--target", p.target, "--parallelism", "0"}, 2, "--parallelism"},
		{"", []string{"--source", p.source, "--target", p.target, "--all", recs[0]}, 2, "--all"},
		{"", []string{"--source", p.source}, 2, "no task records"},
		{"", []string{}, 2, "--source and --target are required"},
		{"", []string{"--target", p.target, "--method", "rows", "-"}, 2, "--method"},
		{"", []string{"--source", p.source, "--target", p.source}, 1, "no schema __backfill"},
		{"", []string{"--source", p.target, "--target", p.target}, 1, "the same database"},
		{"", []string{"--source", p.source, "--target", p.target, "{"}, 1, "task record"},
		{"", []string{"--source", p.source, "--target", p.target, stray}, 1, "is not staged"},
		{recs[0], []string{"--target", p.target, "-"}, 1, "line 1: not a summary"},
		{`{"v":1,"kind":"summary","method":"rows","state":"chunk"}`, []string{"--target", p.target, "-"}, 1, "did not name its hash"},
		{`{"v":1,"kind":"summary","method":"summary","hash_name":"rows-9","state":"gone"}`, []string{"--target", p.target, "-"}, 1,
			`the summaries were made with hash "rows-9"`},
		{`{"v":2,"kind":"summary"}`, []string{"--target", p.target, "-"}, 1, "version 2"},
		{"", []string{"--target", p.target, "-"}, 1, "no summaries on stdin, and no end of them"},
		{"", []string{"--target", p.target}, 1, "no summaries on stdin, and no end of them"},
		{`{"v":1,"kind":"end","summaries":0,"failed":0,"stopped":false}`, []string{"--target", p.target, "-"}, 0, "nothing to verify"},
		{`{"v":1,"kind":"end","summaries":0,"failed":2,"stopped":false}`, []string{"--target", p.target, "-"}, 1, "could not summarize 2 tasks"},
		{`{"v":1,"kind":"end","summaries":0,"failed":0,"stopped":true}`, []string{"--target", p.target, "-"}, 1, "was stopped"},
		{"", []string{"--source", p.source, "--target", p.target, "-"}, 0, "nothing to verify"},
	} {
		r := p.run(t, c.stdin, "bf-verify", c.args...)
		if r.status != c.status || !strings.Contains(r.stderr, c.want) || r.stdout != "" {
			t.Errorf("bf-verify %q: exit status %d, not %d; stderr %q does not say %q; stdout %q", c.args, r.status, c.status, r.stderr, c.want, r.stdout)
		}
	}
}

// TestVerifyHalves: the right half of a pipe knows by itself whether the left
// one came to its end.
func TestVerifyHalves(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.fill(t, 3)
	tasks := p.chunks(t, "--done")
	half := func(tasks string) string { return p.ok(t, tasks, "bf-verify", "--source", p.source, "-") }
	all, none := half(tasks), half("")
	l := strings.SplitAfter(all, "\n")
	for _, c := range []struct {
		what, stdin string
		status      int
		equal       int
		want        string
	}{
		{"all", all, 0, 3, "3 equal"},
		{"an empty list", none, 0, 0, "nothing to verify"},
		{"two of them", all + half(lines(tasks)[0]) + none, 0, 4, "4 equal"},
		{"no end", l[0] + l[1] + l[2], 1, 3, "not whole: 3 came, and bf-verify --source vouches for 0"},
		{"one lost", l[0] + l[2] + l[3], 1, 2, "not whole: 2 came, and bf-verify --source vouches for 3"},
		{"one repeated", l[0] + all, 1, 4, "not whole: 4 came, and bf-verify --source vouches for 3"},
		{"cut in a line", all[:len(all)-len(l[3])-10], 1, 2, "not a summary"},
	} {
		r := p.run(t, c.stdin, "bf-verify", "--target", p.target, "-")
		if n := strings.Count(r.stdout, `"status":"verified"`); r.status != c.status || n != c.equal || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: exit status %d, want %d; %d equal, want %d\n%s", c.what, r.status, c.status, n, c.equal, r.stderr)
		}
	}
	// A task of which there is no summary.
	r := p.run(t, strings.Replace(tasks, `"name":"readings"`, `"name":"reading"`, 1), "bf-verify", "--source", p.source, "-")
	if r.status != 1 {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	if r := p.run(t, r.stdout, "bf-verify", "--target", p.target, "-"); r.status != 1 || !strings.Contains(r.stderr, "could not summarize 1 tasks") {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	if r := p.sh(t, `false | bf-verify --target "$TARGET" -`); r.status != 1 {
		t.Errorf("the left side has died: exit status %d\n%s", r.status, r.stderr)
	}
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
	const schema = "create type mood as enum ('é'); create table l (time int not null, a text, b varchar(5), c char(5), d text[], e jsonb, f mood, g name); select create_hypertable('l', 'time', chunk_time_interval => 10)"
	p.dst.Exec(t, schema)
	conn, err := pgx.Connect(t.Context(), p.source)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"set client_encoding = utf8", "set client_min_messages = error", "create extension timescaledb version '" + in.Version + "'", schema,
		`insert into l select i, chr(200 + i) || i, 'ö', 'ä', '{é,ß}', '{"ü": "é"}', 'é', 'ñ' from generate_series(1, 15) i; insert into l values (16, repeat('ü', 500))`} {
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

// TestVerifyStandby reads a hot standby, and neither side as a superuser.
func TestVerifyStandby(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.fill(t, 2)
		p.source, p.target = p.src.Role(t, "verifier"), p.dst.Role(t, "verifier")
		p.both(t, "alter table readings owner to verifier")
		p.dst.Exec(t, "alter schema __backfill owner to verifier; alter table __backfill.task owner to verifier; alter table __backfill.version owner to verifier")
		standby := testdb.Standby(t, p.src)
		p.source = strings.Replace(standby.ConnString, "postgres@", "verifier@", 1)
		if s := statuses(p.verify(t, 0)); s != "[verified:2]" {
			t.Error(s)
		}
		p.dst.Exec(t, "update readings set note = 'x' where time = '2020-01-01 01:00+0'")
		if s := statuses(p.verify(t, 3, "--all")); s != "[differs:1 verified:1]" {
			t.Error(s)
		}
	})
}

// TestVerifyOrigin: a source that is not the one the tasks are of.
func TestVerifyOrigin(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.fill(t, 1)
	other := testdb.New(t, in, "source")
	r := p.run(t, "", "bf-verify", "--source", other.ConnString, "--target", p.target)
	if r.status != 1 || !strings.Contains(r.stderr, "another database") {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
}

// TestVerifyStop: what is stopped goes on where it was.
func TestVerifyStop(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.fill(t, 4)
	// The first chunk cannot be read for a while.
	lock := p.src.Conn(t)
	var chunk string
	p.src.Query1(t, &chunk, "select chunk_name from timescaledb_information.chunks order by range_start desc limit 1")
	if _, err := lock.Exec(t.Context(), "begin; lock table _timescaledb_internal."+chunk); err != nil {
		t.Fatal(err)
	}
	cmd := p.command(t, "bf-verify", "--source", p.source, "--target", p.target, "--parallelism", "1")
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for waiting := false; !waiting; time.Sleep(10 * time.Millisecond) {
		p.src.Query1(t, &waiting, "select exists (select from pg_locks where not granted)")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if _, err := lock.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if s := statuses(byChunk(t, out.String())); s != "[verified:1]" {
		t.Errorf("the chunk in hand: %s", s)
	}
	if s := statuses(p.verify(t, 0)); s != "[verified:3]" {
		t.Errorf("the rest: %s", s)
	}
}

func TestProgress(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, readings)
		p.both(t, "create table other (time int not null); select create_hypertable('other', 'time', chunk_time_interval => 10)")
		p.src.Exec(t, `insert into readings select '2020-01-01 00:00+0'::timestamptz + i * interval '1 hour', 1 from generate_series(0, 24 * 6 - 1) i;
            insert into other select i from generate_series(0, 19) i`)
		p.stage(t, "--until", "2021-01-01", "--filter", "readings")
		p.stage(t, "--until", "100", "--filter", "other")
		summary := func(args ...string) string {
			return regexp.MustCompile(`"(bytes|bytes_done|rate|seconds_left)":[^,}]*,?`).ReplaceAllString(p.chunks(t, append(args, "--summary", "--json")...), "")
		}
		want := func(when, got string, rows ...string) {
			t.Helper()
			if got = strings.ReplaceAll(got, ",}", "}"); got != strings.Join(rows, "\n")+"\n" {
				t.Errorf("%s:\n%s", when, got)
			}
		}
		const other, reads = `{"v":1,"hypertable":{"schema":"public","name":"other"},`, `{"v":1,"hypertable":{"schema":"public","name":"readings"},`
		want("staged", summary(), other+`"total":2,"done":0,"pending":2,"failed":0,"verified":0,"unequal":0}`,
			reads+`"total":6,"done":0,"pending":6,"failed":0,"verified":0,"unequal":0}`,
			`{"v":1,"total":8,"done":0,"pending":8,"failed":0,"verified":0,"unequal":0}`)
		recs := lines(p.chunks(t, "--filter", "readings"))
		p.load(t, p.dump(t, strings.Join(recs[:4], "\n")))
		p.verify(t, 0, recs[0], recs[1])
		p.dst.Exec(t, "delete from readings where time < '2020-01-04'::timestamptz")
		p.verify(t, 3, recs[3])
		p.dst.Exec(t, "update __backfill.task set failed = now() where priority = 5")
		want("some are done", summary("--filter", "READ"), reads+`"total":6,"done":4,"pending":2,"failed":1,"verified":2,"unequal":1}`,
			`{"v":1,"total":6,"done":4,"pending":2,"failed":1,"verified":2,"unequal":1}`)
		table := p.chunks(t, "--summary")
		for _, re := range []string{`(?m)^hypertable +chunks +pending +failed +verified +unequal +bytes +rate +left$`,
			`(?m)^public.readings +4/6 +2 +1 +2 +1 +\S+ kB +\S+ .B/s +\ds$`, `(?m)^public.other +0/2 +2 +0 +0 +0 +0 B/\S+ kB +- +\ds$`, `(?m)^total +4/8 +4 `, `(?m)^0 at work$`} {
			if !regexp.MustCompile(re).MatchString(table) {
				t.Errorf("no line %s in\n%s", re, table)
			}
		}
		// --watch ends by itself when all is done: a line each time.
		watch := p.command(t, "bf-chunks", "--target", p.target, "--watch", "--every", "0.1")
		var out strings.Builder
		watch.Stdout = &out
		if err := watch.Start(); err != nil {
			t.Fatal(err)
		}
		p.copy(t)
		if err := watch.Wait(); err != nil {
			t.Error(err)
		}
		ls := lines(out.String())
		if last := ls[len(ls)-1]; !regexp.MustCompile(`^\d\d:\d\d:\d\d 8/8 chunks, (\S+)/(\S+) kB, \S+ .B/s; 0 failed, 2 verified, 1 unequal; 0 at work$`).MatchString(last) {
			t.Errorf("the last line is %q", last)
		}
		// The statement of bf-records(5).
		if got := p.dst.Rows(t, "select count(*), count(worked), count(verified) from __backfill.task"); strings.Join(got[0], " ") != "8 8 2" {
			t.Errorf("by SQL: %v", got)
		}
		for _, args := range [][]string{{"--json"}, {"--summary", "--all"}, {"--watch", "--every", "0"}} {
			if r := p.run(t, "", "bf-chunks", append(args, "--target", p.target)...); r.status != 2 || r.stdout != "" {
				t.Errorf("bf-chunks %q: exit status %d, %s", args, r.status, r.stderr)
			}
		}
	})
}
