package e2e

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestCloneRandom clones hypertables, aggregates and jobs that are put together
// at random by statements, and finds them in the catalogs as they are on the
// source.
func TestCloneRandom(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		seed := time.Now().UnixNano()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewSource(seed))
		p := newPair(t, v)
		p.src.Exec(t, "create function now_is() returns bigint language sql stable as 'select 1::bigint'")
		for i := range 12 {
			for _, sql := range randomHypertable(r, i) {
				p.src.Exec(t, sql)
			}
		}
		wantOutput(t, p.clone(t, "--schema-only"), 0, "hypertables: 12,")
		pause(t, p.src)
		diff(t, "catalogs", catalogs(t, p.src), catalogs(t, p.dst))
		diff(t, "pg_dump", dumped(t, p.src, v.Target.BinDir), dumped(t, p.dst, v.Target.BinDir))
	})
}

// randomName is an identifier, quoted, that is unlike all others by its number.
func randomName(r *rand.Rand, i int) string {
	letters := []string{"a", "Z", "ü", `""`, "'", " ", ".", ";", "--", `\`, "$$", "%", "\n", "select", "字",
		"{", "=", ","}
	s := ""
	for range 1 + r.Intn(5) {
		s += letters[r.Intn(len(letters))]
	}
	return fmt.Sprintf(`"%s%d"`, s, i)
}

// randomHypertable returns the statements of one hypertable and what is on it.
func randomHypertable(r *rand.Rand, i int) (sql []string) {
	add := func(format string, args ...any) { sql = append(sql, fmt.Sprintf(format, args...)) }
	pick := func(s ...string) string { return s[r.Intn(len(s))] }
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	raw := func(ident string) string { return quote(strings.ReplaceAll(ident[1:len(ident)-1], `""`, `"`)) }
	table, time, dev, val := randomName(r, i), randomName(r, 1), randomName(r, 2), randomName(r, 3)
	typ := pick("timestamptz", "timestamp", "date", "bigint", "int")
	integer := slices.Contains([]string{"bigint", "int"}, typ)
	width := func(n int) string {
		if integer {
			return fmt.Sprintf("%s '%d'", typ, n*100)
		}
		return fmt.Sprintf("interval '%d days'", n)
	}
	add("create table %s (%s %s not null, %s int not null, %s float8, unique (%s, %s))", table, time, typ, dev,
		val, dev, time)
	named := quote(table)
	prefix := ""
	if r.Intn(3) == 0 {
		prefix = fmt.Sprintf(", associated_table_prefix => 'p_%d''x'", i)
	}
	add("select create_hypertable(%s, %s, chunk_time_interval => %s%s, create_default_indexes => %t)", named, raw(time),
		width(1+r.Intn(50)), prefix, r.Intn(2) == 0)
	if integer && typ == "bigint" {
		add("select set_integer_now_func(%s, 'now_is')", named)
	}
	if r.Intn(2) == 0 {
		add("select add_dimension(%s, %s, number_partitions => %d)", named, raw(dev), 1+r.Intn(9))
	}
	if r.Intn(2) == 0 {
		add("create index %s on %s (%s %s, %s) where %s > 5", randomName(r, 100+i), table, val,
			pick("asc", "desc nulls last"), time, val)
	}
	view := randomName(r, 1000+i)
	bucket := "'1 day'::interval"
	if integer {
		bucket = "50::" + typ
	}
	aggregated := !integer || typ == "bigint"
	if aggregated {
		add("create materialized view %s with (timescaledb.continuous, timescaledb.materialized_only = %t, "+
			"timescaledb.create_group_indexes = %t) as "+
			"select time_bucket(%s, %s) as %s, %s, avg(%s) as %s from %s group by 1, 2 with no data",
			view, r.Intn(2) == 0, r.Intn(2) == 0, bucket, time, time, dev, val, val, table)
		if r.Intn(2) == 0 {
			add("create index on %s (%s)", view, val)
		}
		if r.Intn(2) == 0 {
			add("select add_continuous_aggregate_policy(%s, %s, %s, interval '%d minutes')", quote(view), width(30),
				width(1), 1+r.Intn(500))
		}
	}
	if r.Intn(3) > 0 {
		add("alter table %s set (timescaledb.compress, timescaledb.compress_segmentby = %s, "+
			"timescaledb.compress_orderby = %s)", table, quote(dev),
			quote(time+pick("", " desc", " nulls first")+", "+val+pick("", " desc", " desc nulls last")))
		if !integer || typ == "bigint" {
			add("select add_compression_policy(%s, %s)", named, width(40+r.Intn(100)))
		}
	}
	if (!integer || typ == "bigint") && r.Intn(2) == 0 {
		add("select alter_job(add_retention_policy(%s, %s), scheduled => %t, max_retries => %d)", named, width(1000),
			r.Intn(2) == 0, r.Intn(5))
	}
	return sql
}
