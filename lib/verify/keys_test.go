package verify

import (
	"fmt"
	"slices"
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// keyed opens two sides of one table, of which the target's is changed.
func keyed(t *testing.T, create, change string) (from, to *side) {
	t.Helper()
	var sides []*side
	for i, name := range []pg.Side{pg.Source, pg.Target} {
		d := testdb.New(t, testdb.Installs(t)[0], string(name))
		d.Exec(t, create)
		if i == 1 {
			d.Exec(t, change)
		}
		db, err := tsdb.Open(t.Context(), name, d.ConnString, pg.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		if _, err := db.Exec(t.Context(), "begin isolation level repeatable read read only"); err != nil {
			t.Fatal(err)
		}
		var oid uint32
		d.Query1(t, &oid, "select 'k'::regclass::oid")
		cols, err := db.Columns(t.Context(), oid)
		if err != nil {
			t.Fatal(err)
		}
		sides = append(sides, &side{db: db, h: &tsdb.Hypertable{OID: oid, Columns: cols[oid]}, rows: "public.k"})
	}
	return sides[0], sides[1]
}

// TestFinder narrows down with so few buckets that it takes several steps, and
// finds every kind of difference among ten thousand rows.
func TestFinder(t *testing.T) {
	from, to := keyed(t, `create table k (a int not null, b text, v float8, k int, r text, unique (a, b));
            insert into k select i, 'k' || i % 3, i from generate_series(1, 10000) i;
            insert into k values (0, null, 1), (0, null, 1)`,
		`update k set v = -v where a in (10, 5000);
            delete from k where a = 77;
            insert into k values (-1, 'new', 0), (0, null, 1)`)
	cols, _ := agree(from, to)
	key, err := uniqueKey(t.Context(), from, cols)
	if err != nil || !slices.Equal(key, []int{0, 1}) {
		t.Fatalf("key %v, %v", key, err)
	}
	for _, c := range []struct {
		bits, few int
		most      int // that is found
	}{{12, 4096, 5}, {4, 5000, 5}, {2, 300, 3}, {1, 20, 3}} {
		f := &finder{from: from, to: to, cols: cols, key: key, bits: c.bits, few: int64(c.few)}
		diffs, atLeast, err := f.find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all := []task.Difference{
			{What: "row", Key: "(a=-1, b=new)", Source: "absent", Target: "present"},
			{What: "row", Key: "(a=0, b=null)", Source: "2 times", Target: "3 times"},
			{What: "row", Key: "(a=77, b=k2)", Source: "present", Target: "absent"},
			{What: "value", Column: "v", Key: "(a=10, b=k1)", Source: "10", Target: "-10"},
			{What: "value", Column: "v", Key: "(a=5000, b=k2)", Source: "5000", Target: "-5000"},
		}
		if len(diffs) == 0 || len(diffs) > 5 || atLeast < len(diffs) || c.most == 5 && len(diffs) != 5 {
			t.Errorf("%d bits: %d found, at least %d", c.bits, len(diffs), atLeast)
		}
		for _, d := range diffs {
			if !slices.Contains(all, d) {
				t.Errorf("%d bits: found %s", c.bits, d)
			}
		}
	}
}

// TestFinderExchanged: two rows of one bucket, and two keys that a hash which
// folds bigint would take for one, have exchanged a value.
func TestFinderExchanged(t *testing.T) {
	for _, keys := range [][2]string{{"1", "2"}, {"1", "4294967296"}, {"4294967298", "8589934593"}} {
		from, to := keyed(t, `create table k (a bigint primary key, v numeric);
            insert into k select i, i from generate_series(1, 3000) i;
            insert into k select i::bigint << 32, -i from generate_series(1, 10) i;
            insert into k values (4294967298, 77), (8589934593, 78)`,
			fmt.Sprintf(`update k set v = o.v from k o
                where k.a in (%[1]s, %[2]s) and o.a in (%[1]s, %[2]s) and o.a <> k.a`, keys[0], keys[1]))
		cols, _ := agree(from, to)
		for bits := 1; bits <= 12; bits += 11 {
			f := &finder{from: from, to: to, cols: cols, key: []int{0}, bits: bits, few: 100}
			diffs, _, err := f.find(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(diffs) == 0 || slices.ContainsFunc(diffs, func(d task.Difference) bool {
				return d.Column != "v" || !slices.Contains([]string{"(a=" + keys[0] + ")", "(a=" + keys[1] + ")"},
					d.Key)
			}) {
				t.Errorf("keys %v, %d bits: %v", keys, bits, diffs)
			}
		}
	}
}

func TestTolerance(t *testing.T) {
	sums := func(typ, sum string) *Summary {
		one := "1"
		values := &Values{Count: "1000", Min: &one, Max: &one, Sum: &sum}
		return &Summary{Rows: 1000, Columns: []Column{{Name: "c", Type: typ, Values: values}}}
	}
	for _, c := range []struct {
		typ, a, b string
		equal     bool
	}{
		{"double precision", "1000", "1000.0000000001", true},
		{"double precision", "1000", "1000.000000001", false}, // 1000² · 2⁻⁵² = 2.2e-10
		{"real", "1000", "1000.0000000001", true},
		{"numeric", "1000", "1000.0000000001", false},
		{"bigint", "9007199254740993", "9007199254740992", false},
		{"double precision", "NaN", "1000", false},
		{"double precision", "Infinity", "Infinity", true},
	} {
		diffs, _ := compare(sums(c.typ, c.a), sums(c.typ, c.b))
		if (len(diffs) == 0) != c.equal {
			t.Errorf("%s: %s and %s: %v", c.typ, c.a, c.b, diffs)
		}
	}
}

func TestPlainType(t *testing.T) {
	for typ, want := range map[string]string{
		"timestamp(3) with time zone": "timestamp with time zone",
		"numeric(10,2)":               "numeric",
		"character varying(10)":       "character varying",
		"interval day to second(3)":   "interval",
		"double precision":            "double precision",
	} {
		if got := plainType(typ); got != want {
			t.Errorf("%s: %q", typ, got)
		}
	}
}
