package tsdb

import (
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
)

func TestHasPartition(t *testing.T) {
	three := Dimension{Partitions: 3}
	for _, c := range []struct {
		from, until string
		want        bool
	}{
		{"-9223372036854775808", "715827882", true},
		{"715827882", "1431655764", true},
		{"1431655764", "9223372036854775807", true},
		{"-9223372036854775808", "1073741823", false},
		{"0", "715827882", false},
		{"715827882", "9223372036854775807", false},
	} {
		if got := three.HasPartition(c.from, c.until); got != c.want {
			t.Errorf("HasPartition(%s, %s) = %v", c.from, c.until, got)
		}
	}
	one := Dimension{Partitions: 1}
	if !one.HasPartition("-9223372036854775808", "9223372036854775807") {
		t.Error("a single partition is everything")
	}
}

func TestNatural(t *testing.T) {
	d := Dimension{Interval: 100}
	for _, c := range []struct {
		from, until string
		want        bool
	}{
		{"0", "100", true},
		{"-100", "0", true},
		{"-300", "-200", true},
		{"50", "150", false},
		{"0", "200", false},
		{"0", "50", false},
		{"-9223372036854775808", "9223372036854775807", false},
		{"x", "y", false},
	} {
		if got := d.Natural(c.from, c.until); got != c.want {
			t.Errorf("Natural(%s, %s) = %v", c.from, c.until, got)
		}
	}
}

// TestDimensionOf makes up the dimension that a target does not have.
func TestDimensionOf(t *testing.T) {
	db := &DB{Functions: "f"}
	h := &Hypertable{
		Dimensions: []Dimension{{Column: "ts", Type: "timestamp with time zone",
			RangeType: "timestamp with time zone"}},
		Columns: []pg.Column{{Name: "ts"}, {Name: "dev", Type: "text"},
			{Name: "at", Type: "timestamp(3) without time zone"}},
	}
	for _, c := range []struct {
		slice task.Slice
		want  string
	}{
		{task.Slice{Column: "dev", From: "5", Until: "9223372036854775807", Hash: true},
			`coalesce("f"."get_partition_hash"("dev"), 0) >= '5'::bigint`},
		{task.Slice{Column: "at", From: "-9223372036854775808", Until: "7"},
			`"at" < '1970-01-01 00:00:00.000007'::timestamp`},
		{task.Slice{Column: "ts", From: "1", Until: "9223372036854775807"},
			`"ts" >= '1970-01-01 00:00:00.000001+00'::timestamptz`},
	} {
		got, err := between(dimensionOf(db, h, c.slice), c.slice.From, c.slice.Until)
		if err != nil || got != c.want {
			t.Errorf("%v: %s, %v", c.slice, got, err)
		}
	}
	if d := dimensionOf(db, h, task.Slice{Column: "nowhere"}); d != nil {
		t.Errorf("a dimension on a column that does not exist: %v", d)
	}
}
