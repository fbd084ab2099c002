package e2e

import (
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
			{"interval", "1 mon", "30 days"}, {"jsonb", `{"a":1.0}`, `{"a":1.00}`}, {"numeric[]", "{1.0}", "{1.00}"}, {"float8[]", "{0}", "{-0}"},
			{"numrange", "[1.0,2]", "[1.00,2]"}, {"bpchar", "a", "a  "}, {"interval[]", "{1 mon}", "{30 days}"}, {"weight", "1.0", "1.00"},
			{"pair", "(1 mon,x)", "(30 days,x)"},
		}
		create, values := "time int not null, again int not null", "i, i"
		for i, c := range columns {
			name := string(rune('a' + i))
			create += ", " + name + " " + c.typ
			values += ", case i % 2 when 0 then '" + c.a + "' else '" + c.b + "' end::" + c.typ
		}
		p.both(t, "create domain weight as numeric; create type pair as (i interval, x text); create table l ("+create+`, unique (time));
            select create_hypertable('l', 'time', chunk_time_interval => 1000)`)
		p.src.Exec(t, "insert into l select "+values+" from generate_series(0, 1999) i")
		p.dst.Exec(t, `alter table l set (timescaledb.compress, timescaledb.compress_segmentby = 'a, b', timescaledb.compress_orderby = 'time');
            insert into l(time, again) values (1, 1), (1001, 1001); select compress_chunk(c) from show_chunks('l') c`)
		p.stage(t, "--until", "10000")
		p.copy(t)

		r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target)
		if s := statuses(byChunk(t, r.stdout)); r.status != 3 || s != "[differs:2]" {
			t.Fatalf("exit status %d, %s\n%s", r.status, s, r.stderr)
		}
		for _, res := range byChunk(t, r.stdout) {
			if !res.EqualByValue || !strings.Contains(res.Message, "only in values that = calls equal: compression on the target keeps one") {
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
		halves := p.run(t, p.ok(t, p.chunks(t, "--done"), "bf-verify", "--source", p.source, "--method", "values", "-"), "bf-verify", "--target", p.target)
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
