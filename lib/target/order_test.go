package target_test

import (
	"strings"
	"testing"

	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

const (
	orderedTable = `create table m(ts timestamptz not null, t %s, n int);
			select create_hypertable('m', 'ts', chunk_time_interval => interval '7 days');
			alter table m set (timescaledb.compress, timescaledb.compress_orderby = 't');`
	// By bytes B sorts before a, by most languages after it: where one batch
	// has both, it begins with what sorts last.
	orderedRows = `insert into m select timestamptz '2024-01-04Z' + i * interval '1 minute',
            (array['a', 'B', 'c'])[1 + i % 3], i from generate_series(1, 4500) i;
			select compress_chunk(c) from show_chunks('m') c`
	bytewise = "locale 'C'"
	icu      = "locale 'C' locale_provider icu icu_locale 'en'"
)

func collationMine(options string) string { return "create collation public.mine (" + options + ");" }

// order is a pair of databases that may sort the same values in another way.
type order struct {
	name             string
	source, target   string // what CREATE DATABASE says
	typ, here, there string // type of the column; SQL before the tables are made
	later            string // on the target, after staging
	why              string // "" where the chunk travels as it is
	segments         bool   // t segments the batches and orders nothing
	noMinima         bool   // ≤ 2.16: minima of t have the default collation, which no column has
}

var orders = []order{
	{name: "default", source: bytewise, target: icu, typ: "text", why: "icu en"},
	{name: "default, jsonb", source: bytewise, target: icu, typ: "jsonb", why: "icu en"},
	{name: "default, composite", source: bytewise, target: icu, typ: "public.word",
		here: "create type public.word as (w text);", there: "create type public.word as (w text);", why: "icu en"},
	{name: "same default", source: icu, target: icu, typ: "text"},
	{name: "named", source: bytewise, target: bytewise, typ: `text collate public.mine`,
		here: collationMine("locale = 'C'"), there: collationMine("provider = icu, locale = 'en'"), why: "icu en"},
	{name: "named, after staging", noMinima: true, source: bytewise, target: bytewise, typ: `text collate public.mine`,
		here: collationMine("locale = 'C'"), there: collationMine("locale = 'C'"),
		later: "drop table m; drop collation public.mine;" + collationMine("provider = icu, locale = 'en'") +
			strings.Replace(orderedTable, "%s", "text collate public.mine", 1), why: "icu en"},
	{name: "same named", noMinima: true, source: bytewise, target: bytewise, typ: `text collate public.mine`,
		here: collationMine("provider = icu, locale = 'en'"), there: collationMine("provider = icu, locale = 'en'")},
	{name: "version", source: icu, target: icu, typ: "text",
		there: "update pg_database set datcollversion = '1' where datname = current_database();",
		why:   "(version 1)"},
	{name: "version, after staging", source: icu, target: icu, typ: "text",
		later: "update pg_database set datcollversion = '1' where datname = current_database();",
		why:   "(version 1)"},
	{name: "version of what nothing is sorted by", segments: true, source: icu, target: icu, typ: "text",
		here:  "set timescaledb.enable_sparse_index_bloom = off;",
		there: "update pg_database set datcollversion = '1' where datname = current_database();"},
	{name: "enum", source: bytewise, target: bytewise, typ: "public.letter",
		here:  "create type public.letter as enum ('a', 'B', 'c');",
		there: "create type public.letter as enum ('c', 'B', 'a');", why: "enum"},
}

// create is the SQL that makes the hypertable.
func (o order) create() string {
	sql := strings.Replace(orderedTable, "%s", o.typ, 1)
	if o.segments {
		sql = strings.Replace(sql, "compress_orderby = 't'",
			"compress_orderby = 'ts', timescaledb.compress_segmentby = 't'", 1)
	}
	return sql
}

// fill is the SQL that inserts and compresses the rows.
func (o order) fill() string {
	before, after := "(array[", "i % 3]"
	switch o.typ {
	case "jsonb":
		before, after = "to_jsonb((array[", "i % 3])"
	case "public.word":
		before, after = "row((array[", "i % 3])::public.word"
	case "public.letter":
		after = "i % 3]::public.letter"
	}
	return strings.NewReplacer("(array[", before, "i % 3]", after).Replace(orderedRows)
}

// value is a letter as a literal of the column's type.
func (o order) value(letter string) string {
	switch o.typ {
	case "jsonb":
		return `'"` + letter + `"'`
	case "public.word":
		return "row('" + letter + "')::public.word"
	}
	return "'" + letter + "'"
}

// way checks that the batches travel as they are where both sides sort alike, and
// only there.
func (o order) way(t *testing.T, p testdb.Pair, r *task.Result) {
	t.Helper()
	switch {
	case o.noMinima && !tsdb.AtLeast(p.Target.Version, "2.17"):
		wantWay(t, r, wayFresh, "collation")
	case o.why == "":
		wantWay(t, r, wayRaw, "")
	default:
		wantWay(t, r, wayFresh, o.why)
	}
}

// TestCompressedOrder copies compressed chunks whose batches are ordered by
// values that the target sorts in another way: as they are, queries there would
// miss rows, though all of them are there.
func TestCompressedOrder(t *testing.T) {
	for _, o := range orders {
		t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(o.name), func(t *testing.T) {
			testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
				if !thorough(t, p) || p.Source.Major < 15 {
					t.Skip("on the newest and the oldest version only, with PostgreSQL 15 or later")
				}
				s := &sides{src: testdb.NewSorted(t, p.Source, "source", o.source),
					dst: testdb.NewSorted(t, p.Target, "target", o.target)}
				s.src.Exec(t, o.here+o.create()+o.fill())
				s.dst.Exec(t, o.there+o.create())
				s.stage(t, stage.Options{Until: "2025-01-01"})
				if o.later != "" {
					s.dst.Exec(t, o.later)
				}
				o.way(t, p, one(t, s.copy(t)))
				for _, letter := range []string{"a", "B", "c"} {
					var n int
					s.dst.Query1(t, &n, "select count(*) from m where t = "+o.value(letter))
					if n != 1500 {
						t.Errorf("%d rows with %s, want 1500", n, letter)
					}
				}
				s.ask(t, "m", "after the copy")
			})
		})
	}
}
