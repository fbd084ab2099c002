package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// TestVerifyByValue: compression on the target keeps one of the values that =
// calls equal. bf-verify says so and what helps; both remedies hold.
func TestVerifyByValue(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		// Dictionaries merge what is equal, and so do segments.
		columns := []struct{ typ, a, b string }{
			{"numeric", "1.0", "1.00"}, {"float8", "0", "-0"}, // segmentby
			{"interval", "1 mon", "30 days"},
			{"jsonb", `{"a":1.0}`, `{"a":1.00}`}, {"numeric[]", "{1.0}", "{1.00}"}, {"float8[]", "{0}", "{-0}"},
			{"numrange", "[1.0,2]", "[1.00,2]"},
			{"bpchar", "a", "a  "}, {"interval[]", "{1 mon}", "{30 days}"}, {"weight", "1.0", "1.00"},
			{"pair", "(1 mon,x)", "(30 days,x)"},
		}
		create, values := "time int not null, again int not null", "i, i"
		for i, c := range columns {
			name := string(rune('a' + i))
			create += ", " + name + " " + c.typ
			values += ", case i % 2 when 0 then '" + c.a + "' else '" + c.b + "' end::" + c.typ
		}
		p.both(t, `create domain weight as numeric; create type pair as (i interval, x text);
            create table l (`+create+`, unique (time));
            select create_hypertable('l', 'time', chunk_time_interval => 1000)`)
		p.src.Exec(t, "insert into l select "+values+" from generate_series(0, 1999) i")
		p.dst.Exec(t, `alter table l set (timescaledb.compress, timescaledb.compress_segmentby = 'a, b',
                timescaledb.compress_orderby = 'time');
            insert into l(time, again) values (1, 1), (1001, 1001); select compress_chunk(c) from show_chunks('l') c`)
		p.stage(t, "--until", "10000")
		p.copy(t)

		r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target)
		if s := statuses(byChunk(t, r.stdout)); r.status != 3 || s != "[differs:2]" {
			t.Fatalf("exit status %d, %s\n%s", r.status, s, r.stderr)
		}
		for _, res := range byChunk(t, r.stdout) {
			const said = "only in values that = calls equal: compression on the target keeps one"
			if !res.EqualByValue || !strings.Contains(res.Message, said) {
				t.Errorf("%+v", res)
			}
		}
		if n := strings.Count(r.stderr, "--method values accepts that"); n != 1 {
			t.Errorf("what helps is said %d times:\n%s", n, r.stderr)
		}
		merged := ""
		for i := range columns {
			name := string(rune('a' + i))
			var n int
			p.dst.Query1(t, &n, "select count(distinct row("+name+")::text) from l where time < 1000")
			if n == 1 {
				merged += name
			}
		}
		t.Logf("merged: %s of %d columns", merged, len(columns))
		if !strings.Contains(merged, "a") || !strings.Contains(merged, "c") {
			t.Errorf("neither segments nor dictionaries have merged anything: %q", merged)
		}

		for _, message := range p.verify(t, 0, "--all", "--method", "values") {
			if !strings.HasPrefix(message.Message, "equal by value: 1000 rows") {
				t.Errorf("message %q", message.Message)
			}
		}
		left := p.ok(t, p.chunks(t, "--done"), "bf-verify", "--source", p.source, "--method", "values", "-")
		halves := p.run(t, left, "bf-verify", "--target", p.target)
		if s := statuses(byChunk(t, halves.stdout)); halves.status != 0 || s != "[verified:2]" {
			t.Errorf("halves: exit status %d, %s\n%s", halves.status, s, halves.stderr)
		}

		// A difference beside those is one for both methods, and is not excused.
		p.src.Exec(t, "update l set j = -j where time = 7")
		for _, method := range []string{"rows", "values"} {
			got := p.verify(t, 3, "--all", "--method", method)
			for _, res := range got {
				if mine := res.Task == 2; mine == res.EqualByValue || mine && res.Status != task.Differs {
					if method == "rows" || mine {
						t.Errorf("--method %s: %+v", method, res)
					}
				}
			}
		}

		// Or the chunks come as they are, uncompressed.
		p.dst.Exec(t, "select decompress_chunk(c) from show_chunks('l') c")
		p.load(t, p.dump(t, p.chunks(t, "--done")), "--force")
		if s := statuses(p.verify(t, 0, "--all")); s != "[verified:2]" {
			t.Errorf("loaded again: %s", s)
		}
	})
}

// TestVerifyCompressedOtherwise: how rows are compressed makes no difference, or
// whether they are; batches that have exchanged a column do.
func TestVerifyCompressedOtherwise(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, `create table l (time int not null, dev int, kind int, a float8, x text);
            select create_hypertable('l', 'time', chunk_time_interval => 1000)`)
		p.src.Exec(t, `insert into l select i, i % 7, i % 3, sqrt(i), case when i % 5 > 0 then 'x' || i % 50 end
            from generate_series(0, 4999) i`)
		p.stage(t, "--until", "10000")
		p.copy(t)
		compress := func(db *testdb.DB, segmentby, orderby, chunks string) {
			db.Exec(t, fmt.Sprintf(`alter table l set (timescaledb.compress, timescaledb.compress_segmentby = '%s',
                    timescaledb.compress_orderby = '%s');
                select compress_chunk(c)
                from (select c, row_number() over (order by c::text) n from show_chunks('l') c offset 0) x
                where n in (%s)`, segmentby, orderby, chunks))
		}
		compress(p.src, "dev", "time", "1, 2, 4")
		compress(p.dst, "kind", "a desc, time", "1, 3, 4")
		for _, db := range []*testdb.DB{p.src, p.dst} { // a part is compressed, in two ways
			db.Exec(t, "insert into l values (3500, 1, 1, 1, 'more'), (3501, 2, 2, 2, null)")
		}
		for _, method := range []string{"rows", "values", "summary"} {
			if s := statuses(p.verify(t, 0, "--all", "--method", method)); s != "[verified:5]" {
				t.Errorf("--method %s: %s", method, s)
			}
		}

		// The same settings, so that batches are compared; then two of them
		// exchange a column.
		q := newPair(t, v)
		q.both(t, `create table l (time int not null, dev int, a float8);
            select create_hypertable('l', 'time', chunk_time_interval => 1000);
            alter table l set (timescaledb.compress, timescaledb.compress_segmentby = 'dev',
                timescaledb.compress_orderby = 'time')`)
		q.src.Exec(t, `insert into l select i, i % 5, sqrt(i) from generate_series(0, 999) i;
            select compress_chunk(c) from show_chunks('l') c`)
		q.stage(t, "--until", "10000")
		q.copy(t)
		for _, r := range q.verify(t, 0) {
			if !strings.Contains(r.Hash, "/") {
				t.Errorf("batches were not compared: %+v", r)
			}
		}
		var relation string
		q.dst.Query1(t, &relation, `select format('%I.%I', schemaname, tablename) from pg_tables
            where tablename like 'compress%chunk' or tablename like '%chunk\_compressed'`)
		exchange := func(column string) {
			q.dst.Exec(t, fmt.Sprintf("update %[1]s t set %[2]s = o.%[2]s from %[1]s o "+
				"where (t.dev, o.dev) in ((1, 2), (2, 1))",
				relation, column))
		}
		for _, column := range []string{"dev", "a"} {
			exchange(column)
			got := q.verify(t, 3, "--all")
			for _, r := range got {
				if !strings.Contains(r.Message, "in other rows") {
					t.Errorf("%s exchanged: %s", column, r.Message)
				}
			}
			exchange(column)
			if s := statuses(q.verify(t, 0)); s != "[verified:1]" {
				t.Errorf("%s exchanged back: %s", column, s)
			}
		}
	})
}
