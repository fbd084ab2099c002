package tsdb

import (
	"testing"

	"bf/lib/pg"
	"bf/lib/testdb"
)

// TestTotal: where two chunks hold no row of a range, the total is zero, not nothing.
func TestTotal(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		d := testdb.New(t, p.Source, "source")
		d.Exec(t, `create table h (time bigint not null, v int);
			select create_hypertable('h', 'time', chunk_time_interval => 100);
			create function now_is() returns bigint language sql stable as 'select 2000::bigint';
			select set_integer_now_func('h', 'now_is');
			insert into h values (10, 1), (1990, 1)`)
		d.Exec(t, `create materialized view c with (timescaledb.continuous) as
			select time_bucket(10, time) as b, sum(v) as v from h group by 1 with no data`)
		d.Exec(t, "call refresh_continuous_aggregate('c', 0, 2000)")
		db, err := Open(t.Context(), pg.Source, d.ConnString, pg.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		var rows int
		var sum string
		if err := Total(t.Context(), db, "count(*), coalesce(sum(hashint8(time)::bigint), 0)::text",
			"public.h where time between 20 and 1980", &rows, &sum); err != nil || rows != 0 || sum != "0" {
			t.Errorf("of the table: %d rows, %q, %v", rows, sum, err)
		}
		hs, err := db.Hypertables(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all, err := db.Aggregates(t.Context(), hs)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		b, err := all[0].Sum(t.Context(), db, Span{From: 20, Until: 1980})
		if err != nil || b.Rows != 0 || b.Hash != "0" {
			t.Errorf("of the aggregate: %+v, %v", b, err)
		}
	})
}
