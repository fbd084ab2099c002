package target_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"bf/lib/stage"
	"bf/lib/testdb"
)

// TestToast copies batches that TOAST can compress, that it cannot, and of both kinds: on
// the target they are stored as on the source, and later ones will be.
func TestToast(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if p.Source.Major < 14 {
			t.Skip("before PostgreSQL 14 the server does not tell how TOAST has stored a value")
		}
		s := both(t, p)
		s.exec(t, `create table m(ts timestamptz not null, dev int, never text, ever text, either text, v float8);
			select create_hypertable('m', 'ts', chunk_time_interval => interval '7 days');
			alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'dev');`)
		for _, week := range []string{"2024-01-04", "2024-01-11"} {
			s.src.Exec(t, `insert into m select timestamptz '`+week+`Z' + i * interval '1 minute', i % 3, md5(i::text),
				repeat('abc', 20) || i, case when '`+week+`' < '2024-01-10' or i % 3 = 0 then md5(i::text)
				else repeat('abc', 20) || i end, i from generate_series(1, 3000) i`)
		}
		s.src.Exec(t, `select compress_chunk(c) from show_chunks('m') c`)
		s.stage(t, stage.Options{Until: "2025-01-01"})
		for _, r := range s.copy(t) {
			wantWay(t, r, wayRaw, "")
		}
		var chunks [2][]string // in whatever order
		for i, db := range []*testdb.DB{s.src, s.dst} {
			for _, c := range db.Rows(t, `select a.attrelid::regclass
				from pg_attribute a join pg_class c on c.oid = attrelid
				where attname = '_ts_meta_count' and relkind = 'r' and not starts_with(relname, '_compressed')`) {
				columns := db.Rows(t, `select attname, attstorage from pg_attribute
					where attrelid = '`+c[0]+`'::regclass and attnum > 0 order by attname`)
				batches := db.Rows(t, `select dev, pg_column_compression(never), pg_column_compression(ever),
					pg_column_compression(either), pg_column_size(never), pg_column_size(ever), pg_column_size(either)
					from `+c[0]+` order by dev, never::text`)
				chunks[i] = append(chunks[i], fmt.Sprint(columns, batches))
			}
			slices.Sort(chunks[i])
		}
		if len(chunks[0]) == 0 || !reflect.DeepEqual(chunks[0], chunks[1]) {
			t.Errorf("source %v\ntarget %v", chunks[0], chunks[1])
		}
		compressed := func(column string) (kinds [][]string) {
			return s.src.Rows(t, `select distinct pg_column_compression(`+column+`) is not null from
				(select * from `+lastRelation(t, s.src)+`) r order by 1`)
		}
		for column, want := range map[string][][]string{"never": {{"f"}}, "ever": {{"t"}},
			"either": {{"f"}, {"t"}}} {
			if kinds := compressed(column); !reflect.DeepEqual(kinds, want) {
				t.Errorf("batches of %s are compressed: %v, so this shows nothing", column, kinds)
			}
		}
		s.ask(t, "m", "after the copy")
	})
}

// lastRelation is the compressed relation that was made last.
func lastRelation(t *testing.T, db *testdb.DB) (name string) {
	t.Helper()
	db.Query1(t, &name, `select a.attrelid::regclass::text from pg_attribute a join pg_class c on c.oid = attrelid
		where attname = '_ts_meta_count' and relkind = 'r' and not starts_with(relname, '_compressed')
		order by attrelid desc limit 1`)
	return name
}
