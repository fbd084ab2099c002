package task

import (
	"bytes"
	"strings"
	"testing"
)

const sliceLine = `{"v":2,"task":7,"kind":"slice","hypertable":{"schema":"public","name":"history"},` +
	`"into":{"schema":"public","name":"metrics"},` +
	`"chunk":{"schema":"public","name":"history"},` +
	`"slices":[{"column":"time","from":"1704326400000000","until":"1704931200000000"}],` +
	`"range":{"column":"time","from":"1704326400000000","until":"1704931200000000"},` +
	`"scan":{"by":"blocks","rows":"1000000","relations":[{"schema":"public","name":"history","filenode":"16385",` +
	`"blocks":["0-64","4672-14018"]}]},` +
	`"origin":"7301-16384","bytes":81000000,"rows":1000000}`

// TestSliceRecord reads and writes a record of a plain table: no field may change.
func TestSliceRecord(t *testing.T) {
	r, err := Parse([]byte(sliceLine))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, r); err != nil || b.String() != sliceLine+"\n" {
		t.Errorf("%v\ngot  %swant %s", err, b.String(), sliceLine)
	}
	if r.Target() != (Name{"public", "metrics"}) || r.Scan.Relations[0].Blocks[1] != (Blocks{4672, 14018}) {
		t.Errorf("%s %v", r.Target(), r.Scan.Relations)
	}
}

func TestSliceRefused(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"v":2`, `"v":1`, `kind "slice" in a record of version 1`},
		{`"kind":"slice"`, `"kind":"heap"`, `kind "heap": this bf does not know it`},
		{`"kind":"slice",`, ``, "record version 2 without a kind"},
		{`"into":{"schema":"public"`, `"into":{"schema":""`, "into without schema and name"},
		{`"by":"blocks"`, `"by":"ctid"`, `scan by "ctid"`},
		{`"rows":"1000000","rel`, `"rows":"-1","rel`, "scan of -1 rows"},
		{`"0-64"`, `"64-0"`, "not first-until"},
		{`"0-64"`, `"0-4294967296"`, "not first-until"},
		{`"filenode":"16385",`, ``, "without filenode or blocks"},
		{`"name":"history","filenode"`, `"name":"","filenode"`, "relation of a scan without schema and name"},
		{`"scan":{`, `"view":{"schema":"a","name":"b"},"scan":{`, "field view does not go with"},
	} {
		in := strings.Replace(sliceLine, c.old, c.new, 1)
		if _, err := Parse([]byte(in)); in == sliceLine || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", in, err, c.want)
		}
	}
}

func TestSameScan(t *testing.T) {
	for _, change := range []func(*Task){
		func(t *Task) { t.Kind = KindExec },
		func(t *Task) { t.Into = nil },
		func(t *Task) { t.Scan = nil },
		func(t *Task) { t.Scan.By = ByRange },
		func(t *Task) { t.Scan.Rows++ },
		func(t *Task) { t.Scan.Relations[0].Filenode = "2" },
		func(t *Task) { t.Scan.Relations[0].Blocks[0].Until++ },
	} {
		a, _ := Parse([]byte(sliceLine))
		b, _ := Parse([]byte(sliceLine))
		if d, same := a.SameWork(b); !same {
			t.Fatal(d)
		}
		change(b)
		if d, same := a.SameWork(b); same || d == "" {
			t.Errorf("%+v: the same", b)
		}
	}
}
