package task

import (
	"encoding/json"
	"testing"
)

func TestDifference(t *testing.T) {
	for _, c := range []struct {
		d    Difference
		want string
	}{
		{Difference{What: "rows", Source: "2", Target: "1"}, "rows: 2 on the source, 1 on the target"},
		{Difference{What: "sum", Column: "a b", Source: "2", Target: "1"},
			`column "a b", sum: 2 on the source, 1 on the target`},
		{Difference{What: "row", Key: "(k=1)", Source: "present", Target: "absent"},
			"row (k=1): present on the source, absent on the target"},
		{Difference{What: "value", Key: "(k=1)", Column: "a", Source: "x", Target: "null"},
			`row (k=1), column "a": x on the source, null on the target`},
	} {
		if got := c.d.String(); got != c.want {
			t.Errorf("%+v: %s", c.d, got)
		}
	}
}

// TestResult: what does not apply to a result is not in its record.
func TestResult(t *testing.T) {
	b, err := json.Marshal(&Result{V: 1, Task: 3, Hypertable: Name{"public", "m"}, Chunk: Name{"s", "c"},
		Status: Skipped})
	const want = `{"v":1,"task":3,"hypertable":{"schema":"public","name":"m"},"chunk":{"schema":"s","name":"c"},` +
		`"status":"skipped","rows":0,"bytes":0,"seconds":0}`
	if err != nil || string(b) != want {
		t.Errorf("%v: %s", err, b)
	}
}

// TestObstacles: each reason has words, and the first one counts.
func TestObstacles(t *testing.T) {
	if l := (Obstacles{}).First(); l != "" || l.Says() != "" {
		t.Errorf("no obstacle: %q", l)
	}
	all := Obstacles{LooseRefused: false}
	for _, l := range []Loose{LoosePrivilege, LooseRefused, LooseDefault, LooseReferenced, LooseRange,
		LooseExtents, LooseDimensions, LooseDisabled, LooseApache} {
		all[l] = true
		if got := all.First(); got != l || l.Says() == "" {
			t.Errorf("%q is in the way, first is %q: %q", l, got, got.Says())
		}
	}
}
