package target_test

import (
	"strings"
	"testing"

	"bf/lib/stage"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// TestCompressedOrder copies compressed chunks whose batches are ordered by
// values that the target sorts in another way: as they are, queries there would
// miss rows, though all of them are there.
func TestCompressedOrder(t *testing.T) {
	const (
		table = `create table m(ts timestamptz not null, t %s, n int);
			select create_hypertable('m', 'ts', chunk_time_interval => interval '7 days');
			alter table m set (timescaledb.compress, timescaledb.compress_orderby = 't');`
		// By bytes B sorts before a, by most languages after it: where one batch
		// has both, it begins with what sorts last.
		rows = `insert into m select timestamptz '2024-01-04Z' + i * interval '1 minute',
            (array['a', 'B', 'c'])[1 + i % 3], i from generate_series(1, 4500) i;
			select compress_chunk(c) from show_chunks('m') c`
		bytes = "locale 'C'"
		icu   = "locale 'C' locale_provider icu icu_locale 'en'"
	)
	mine := func(options string) string { return "create collation public.mine (" + options + ");" }
	for _, c := range []struct {
		name, source, target string // what CREATE DATABASE says
		typ, here, there     string // type of the column; SQL before the tables are made
		later                string // on the target, after staging
		why                  string // "" where the chunk travels as it is
		segments             bool   // t segments the batches and orders nothing
		noMinima             bool   // ≤ 2.16: minima of t have the default collation, which no column has
	}{
		{name: "default", source: bytes, target: icu, typ: "text", why: "icu en"},
		{name: "default, jsonb", source: bytes, target: icu, typ: "jsonb", why: "icu en"},
		{name: "default, composite", source: bytes, target: icu, typ: "public.word",
			here: "create type public.word as (w text);", there: "create type public.word as (w text);", why: "icu en"},
		{name: "same default", source: icu, target: icu, typ: "text"},
		{name: "named", source: bytes, target: bytes, typ: `text collate public.mine`, here: mine("locale = 'C'"),
			there: mine("provider = icu, locale = 'en'"), why: "icu en"},
		{name: "named, after staging", noMinima: true, source: bytes, target: bytes, typ: `text collate public.mine`,
			here: mine("locale = 'C'"), there: mine("locale = 'C'"),
			later: "drop table m; drop collation public.mine;" + mine("provider = icu, locale = 'en'") +
				strings.Replace(table, "%s", "text collate public.mine", 1), why: "icu en"},
		{name: "same named", noMinima: true, source: bytes, target: bytes, typ: `text collate public.mine`,
			here: mine("provider = icu, locale = 'en'"), there: mine("provider = icu, locale = 'en'")},
		{name: "version", source: icu, target: icu, typ: "text",
			there: "update pg_database set datcollversion = '1' where datname = current_database();",
			why:   "(version 1)"},
		{name: "version, after staging", source: icu, target: icu, typ: "text",
			later: "update pg_database set datcollversion = '1' where datname = current_database();",
			why:   "(version 1)"},
		{name: "version of what nothing is sorted by", segments: true, source: icu, target: icu, typ: "text",
			here:  "set timescaledb.enable_sparse_index_bloom = off;",
			there: "update pg_database set datcollversion = '1' where datname = current_database();"},
		{name: "enum", source: bytes, target: bytes, typ: "public.letter",
			here:  "create type public.letter as enum ('a', 'B', 'c');",
			there: "create type public.letter as enum ('c', 'B', 'a');", why: "enum"},
	} {
		t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(c.name), func(t *testing.T) {
			testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
				if !thorough(t, p) || p.Source.Major < 15 {
					t.Skip("on the newest and the oldest version only, with PostgreSQL 15 or later")
				}
				s := &sides{src: testdb.NewSorted(t, p.Source, "source", c.source),
					dst: testdb.NewSorted(t, p.Target, "target", c.target)}
				create, insert := strings.Replace(table, "%s", c.typ, 1), rows
				if c.segments {
					create = strings.Replace(create, "compress_orderby = 't'",
						"compress_orderby = 'ts', timescaledb.compress_segmentby = 't'", 1)
				}
				switch c.typ {
				case "jsonb":
					insert = strings.Replace(insert, "(array[", "to_jsonb((array[", 1)
					insert = strings.Replace(insert, "i % 3]", "i % 3])", 1)
				case "public.word":
					insert = strings.Replace(insert, "(array[", "row((array[", 1)
					insert = strings.Replace(insert, "i % 3]", "i % 3])::public.word", 1)
				case "public.letter":
					insert = strings.Replace(insert, "i % 3]", "i % 3]::public.letter", 1)
				}
				s.src.Exec(t, c.here+create+insert)
				s.dst.Exec(t, c.there+create)
				s.stage(t, stage.Options{Until: "2025-01-01"})
				if c.later != "" {
					s.dst.Exec(t, c.later)
				}
				r := one(t, s.copy(t))
				switch {
				case c.noMinima && !tsdb.AtLeast(p.Target.Version, "2.17"):
					wantWay(t, r, wayFresh, "collation")
				case c.why == "":
					wantWay(t, r, wayRaw, "")
				default:
					wantWay(t, r, wayFresh, c.why)
				}
				for _, letter := range []string{"a", "B", "c"} {
					if c.typ == "jsonb" {
						letter = `"` + letter + `"`
					}
					value := "'" + letter + "'"
					if c.typ == "public.word" {
						value = "row(" + value + ")::public.word"
					}
					var n int
					s.dst.Query1(t, &n, "select count(*) from m where t = "+value)
					if n != 1500 {
						t.Errorf("%d rows with %s, want 1500", n, letter)
					}
				}
				s.ask(t, "m", "after the copy")
			})
		})
	}
}
