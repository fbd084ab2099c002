package tsdb

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/testdb"
)

// TestLiterals: constants mean what TimescaleDB makes of the internal value.
func TestLiterals(t *testing.T) {
	d := testdb.New(t, testdb.Installs(t)[0], "source")
	db, err := Open(t.Context(), pg.Source, d.ConnString, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	has := map[string]bool{}
	types := map[string]string{
		"timestamp with time zone":    db.Fn("to_timestamp") + "($1::bigint)",
		"timestamp without time zone": db.Fn("to_timestamp_without_timezone") + "($1::bigint)",
		"date":                        db.Fn("to_date") + "($1::bigint)",
		"uuid": pg.Ident(db.ExtensionSchema, "to_uuidv7_boundary") + "(" +
			db.Fn("to_timestamp") + "($1::bigint))",
	}
	for typ := range types {
		fn := map[string]string{"uuid": "to_uuidv7_boundary"}[typ]
		var there bool
		d.Query1(t, &there, "select $1 = '' or exists (select from pg_proc where proname = $1)", fn)
		has[typ] = there
	}
	r := rand.New(rand.NewPCG(1, 2))
	values := []int64{0, 1, -1, 999, -999, 1704067200000000, -62135596800000000, -62135596800000001,
		-210866803200000000, 253402300800000000, 9223371331199999999}
	for range 200 {
		values = append(values, r.Int64N(1<<r.IntN(62)+1)-r.Int64N(1<<r.IntN(57)+1))
	}
	const day = 86400000000
	for _, v := range values {
		for typ, want := range types {
			at := v
			switch {
			case !has[typ], typ == "uuid" && v < 0:
				continue
			case typ == "date":
				at = (v%day+day-1)/day*day + v/day*day // the first day that is not before
			}
			var same bool
			var got, wanted string
			sql := fmt.Sprintf("select a = b, a::text, b::text from (select %s a, %s b) x", literal(typ, v), want)
			if err := db.QueryRow(t.Context(), sql, at).Scan(&same, &got, &wanted); err != nil {
				t.Errorf("%s %d: %v", typ, v, err)
			} else if !same {
				t.Errorf("%s %d: %s, want %s", typ, v, got, wanted)
			}
		}
	}
	for typ, want := range map[string]string{"date": "'-infinity'::date",
		"timestamp with time zone": "'-infinity'::timestamptz"} {
		if got := literal(typ, task.MinBound); got != want {
			t.Errorf("%s without a beginning: %s", typ, got)
		}
	}
}
