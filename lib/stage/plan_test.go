package stage

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/tsdb"
)

// fill sets every field of a value, by reflection, to something that is not its
// zero: a field that the wire forgets shows.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(*n))
	default:
		if v.CanInt() {
			v.SetInt(int64(*n))
		} else {
			v.SetUint(uint64(*n))
		}
	}
}

// TestPlanWire writes a plan of which nothing is empty and reads it again: what
// is missing are the ids, which mean nothing on the other side, and what Fit
// adds.
func TestPlanWire(t *testing.T) {
	var p Plan
	n := 0
	fill(reflect.ValueOf(&p).Elem(), &n)
	p.Loose, p.Notes, p.Tasks, p.Into = nil, nil, nil, nil
	for i, h := range p.Hypertables {
		tk := &task.Task{V: task.Version, Hypertable: h.Name,
			Chunk: task.Name{Schema: "s", Name: fmt.Sprintf("c%d", i)}, Origin: p.Source.Origin,
			Slices: []task.Slice{{Column: "t", From: "1", Until: "2"}},
			Range:  task.Range{Column: "t", From: "1", Until: "2"}}
		p.Tasks = append(p.Tasks, tk)
		var c Compressed
		fill(reflect.ValueOf(&c).Elem(), &n)
		p.Compressed[tk.Chunk] = c
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range p.Hypertables {
		h.ID, h.OID, h.Raw, h.Finalized, h.Version, h.Relkind = 0, 0, 0, false, "", ""
	}
	if !reflect.DeepEqual(&p, got) {
		t.Errorf("written\n%+v\nread\n%+v", p, *got)
	}
}

// TestPlanRead reads what is no plan.
func TestPlanRead(t *testing.T) {
	var b strings.Builder
	if err := (&Plan{Source: Server{Origin: "1/2"},
		Hypertables: []*tsdb.Hypertable{{Name: task.Name{Schema: "s", Name: "h"},
			Dimensions: []tsdb.Dimension{{Column: "t"}}}}}).Write(&b); err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(b.String(), "\n")
	record := func(hypertable, origin string) string {
		return fmt.Sprintf(`{"v":1,"hypertable":{"schema":"s","name":%q},"chunk":{"schema":"a","name":"b"},`+
			`"origin":%q,`+
			`"slices":[{"column":"t","from":"1","until":"2"}],"range":{"column":"t","from":"1","until":"2"}}`,
			hypertable, origin)
	}
	for _, c := range []struct{ in, want string }{
		{"", "no plan on stdin"},
		{"\n \n", "no plan on stdin"},
		{"hello", "line 1: not a task record"},
		{rest, "line 1: not a plan: it does not describe its source"},
		{record("h", "1/2"), "it does not describe hypertable s.h"},
		{head + "\n" + record("h", "1/2"), "line 2: not a plan of bf-stage: it does not describe hypertable s.h"},
		{head + "\n" + rest + record("h", "3/4"), "different source databases"},
		{head + "\n" + strings.ReplaceAll(head, "1/2", "3/4"), "different source databases"},
		{head + "\n" + rest + record("g", "1/2"), "it does not describe hypertable s.g"},
		{strings.Replace(head, `"v":1`, `"v":9`, 1), "version 9"},
		{head + "\n" + `{"v":1,"kind":"hypertable","name":{"schema":"s","name":"h"}}`, "without name or dimensions"},
		{head + "\n" + `{"v":1,"kind":"aggregate"}`, "aggregate without view"},
		{head, ""}, // nothing to do is a plan
		{b.String() + b.String() + record("h", "1/2"), ""},
	} {
		_, err := Read(strings.NewReader(c.in))
		if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && !strings.Contains(got, c.want) {
			t.Errorf("%s\nis read: %s, want %q", c.in, got, c.want)
		}
	}
}
