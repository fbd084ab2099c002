package target_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
)

// paths reads the hypertable by every access path that could go wrong.
var paths = []string{
	`select count(*), sum(i), sum(v::numeric), min(ts), max(ts), count(b), count(j), count(a) from m`,
	`select md5(string_agg(m::text, ';' order by m::text)) from m`,
	`select * from m order by ts limit 5`,
	`select * from m order by ts desc, i limit 5`,
	`select ts, i from m where dev = 2 order by ts desc, i limit 7`,
	`select ts, i from m where dev = 2 order by ts, i desc limit 7`,
	`select dev, count(*) from m group by 1 order by 1`,
	`select count(*), sum(i) from m where ts >= '2024-01-04 03:00+00' and ts < '2024-01-04 20:00+00'`,
	`select count(*), sum(i) from m where i between 100 and 300`,
	`select count(*), sum(i) from m where u = '00000000-0000-0000-0000-000000000007'`,
	`select count(*), sum(i) from m where t = 't3' and u = '00000000-0000-0000-0000-000000000013'`,
	`select count(*), sum(i) from m where t = 't3'`,
	`select count(*), sum(i) from m where t > 't5' and dev = 1`,
	`select count(*) from m where b is null`,
	`select count(*) from m where dev is null`,
	`select last(i, ts), first(i, ts) from m where dev = 3`,
}

// plans make the planner choose otherwise.
var plans = []string{
	"set enable_seqscan = on; set enable_indexscan = on; set enable_bitmapscan = on",
	"set enable_seqscan = off; set enable_bitmapscan = on",
	"set enable_seqscan = on; set enable_indexscan = off; set enable_bitmapscan = off",
}

func look(t *testing.T, db *testdb.DB, plans ...string) map[string][][]string {
	t.Helper()
	m := map[string][][]string{}
	for _, set := range plans {
		db.Exec(t, set)
		for _, q := range paths {
			m[set+"\n"+q] = db.Rows(t, q)
		}
	}
	db.Exec(t, "reset enable_seqscan; reset enable_indexscan; reset enable_bitmapscan")
	return m
}

// same reads both sides alike, and asks the target in every way for what it has.
func (s *sides) same(t *testing.T, when string) {
	t.Helper()
	s.compare(t, when, plans...)
	s.ask(t, "m", when)
}

func (s *sides) compare(t *testing.T, when string, plans ...string) {
	t.Helper()
	a, b := look(t, s.src, plans...), look(t, s.dst, plans...)
	for q := range a {
		if !reflect.DeepEqual(a[q], b[q]) {
			t.Errorf("%s: %s\nsource %v\ntarget %v", when, q, a[q], b[q])
			return
		}
	}
}

// ask puts generated questions to a hypertable of the target, which the server
// answers by everything that it knows of chunks and batches (ranges of chunk
// skipping, minima, maxima, first and last values, bloom filters, segments, order,
// indexes), and to a plain copy of all of its rows, where it knows nothing. A
// question that the source itself answers wrongly proves nothing.
func (s *sides) ask(t *testing.T, table, when string) {
	t.Helper()
	wrong := misled(t, s.dst, table)
	if len(wrong) == 0 {
		return
	}
	native := misled(t, s.src, table, wrong...)
	for _, q := range wrong {
		if !slices.ContainsFunc(native, func(n question) bool { return n.sql == q.sql }) {
			t.Errorf("%s: %s\n%s\nanswered with %s instead of %s", when, q.plan, q.sql, q.got, q.want)
			return
		}
	}
}

// question is one that was answered wrongly.
type question struct{ sql, plan, got, want string }

// misled asks a table questions, its own or those given, and returns what was
// answered otherwise than by a plain copy.
func misled(t *testing.T, db *testdb.DB, table string, given ...question) (wrong []question) {
	t.Helper()
	ctx, conn := context.Background(), db.Conn(t) // in its own session: settings count from the first look at the table
	defer conn.Close(ctx)
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("select count(*) from timescaledb_information.hypertables") // which loads the extension
	exec("select set_config('client_encoding', " +
		"case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end, false)")
	exec("select set_config(name, 'on', false) from pg_settings where name = 'timescaledb.enable_chunk_skipping'")
	exec("create temp table plain as select * from " + table + "; analyze plain")
	var questions []string
	for _, q := range given {
		questions = append(questions, q.sql)
	}
	if given == nil {
		questions = generate(t, conn, 60)
	}
	if len(questions) == 0 {
		return nil
	}
	answers := func(of string) (a []string) {
		t.Helper()
		sql := "select array[coalesce((" + strings.Join(questions, ")::text, ''), coalesce((") + ")::text, '')]"
		if err := conn.QueryRow(ctx, strings.ReplaceAll(sql, "{t}", of)).Scan(&a); err != nil {
			t.Fatalf("%v\n%.500s", err, sql)
		}
		return a
	}
	want := answers("pg_temp.plain")
	for _, plan := range plans {
		exec(plan)
		for i, got := range answers(table) {
			if got != want[i] {
				wrong = append(wrong, question{questions[i], plan, got, want[i]})
			}
		}
	}
	return wrong
}

// generate makes up questions about {t}, from values of all columns of the plain
// copy whose type has an order of its own.
func generate(t *testing.T, conn *pgx.Conn, n int) (questions []string) {
	t.Helper()
	ctx := context.Background()
	rows, err := conn.Query(ctx, `select a.attname::text from pg_attribute a
		join pg_type y on y.oid = a.atttypid
		where a.attrelid = 'pg_temp.plain'::regclass and a.attnum > 0 and not a.attisdropped
		  and (y.typname = 'varchar'
		       or exists (select from pg_opclass o join pg_am m on m.oid = o.opcmethod where m.amname = 'btree'
		       and o.opcdefault and o.opcintype = y.oid))`)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{}
	for _, name := range columns {
		c := pg.Ident(name)
		var v []string
		sql := fmt.Sprintf(`with v as materialized (select distinct %s as x from pg_temp.plain where %[1]s is not null)
			select array(select quote_literal(x::text)
			from ((select x from v order by x limit 1) union all (select x from v order by x desc limit 1)
			union all (select x from v order by random() limit 3)) f)`, c)
		if err := conn.QueryRow(ctx, sql).Scan(&v); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		values[c] = v
	}
	columns = columns[:0]
	for c, v := range values {
		if len(v) > 0 {
			columns = append(columns, c)
		}
	}
	if len(columns) == 0 {
		return nil
	}
	slices.Sort(columns)
	condition := func() string {
		c := columns[rand.N(len(columns))]
		v, w := values[c][rand.N(len(values[c]))], values[c][rand.N(len(values[c]))]
		return strings.NewReplacer("$c", c, "$v", v, "$w", w).Replace([]string{
			"$c = $v", "$c = $v", "$c < $v", "$c <= $v", "$c > $v", "$c >= $v", "$c between $v and $w",
			"$c > $v and $c < $w", "$c in ($v, $w)", "$c is null", "$c <> $v"}[rand.N(11)])
	}
	for range n {
		c, where := columns[rand.N(len(columns))], condition()
		if rand.N(3) == 0 {
			where += " and " + condition()
		}
		questions = append(questions, strings.NewReplacer("$where", where, "$c", c).Replace([]string{
			"select count(*) from {t} where $where",
			"select count(*) from {t} where $where",
			"select row(count(*), count($c), sum(hashtext($c::text))) from {t} where $where",
			"select concat_ws(' ', first($c, $c), last($c, $c)) from {t} where $where",
			"select string_agg(x::text, ' ') from (select $c as x from {t} where $where order by $c limit 4) x",
			"select string_agg(x::text, ' ') from (select $c as x from {t} where $where order by $c desc limit 4) x",
		}[rand.N(6)]))
	}
	return questions
}
