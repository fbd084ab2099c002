package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

const line = `{"v":1,"task":42,"hypertable":{"schema":"public","name":"metrics"},"view":{"schema":"public",` +
	`"name":"daily"},` +
	`"chunk":{"schema":"_timescaledb_internal","name":"_hyper_1_2_chunk"},` +
	`"slices":[{"column":"time","from":"-9223372036854775808","until":"9223372036854775807"},{"column":"device",` +
	`"from":"0","until":"1073741823","hash":true}],` +
	`"range":{"column":"time","from":"9007199254740993","until":"9223372036854775807","partial":true,` +
	`"until_text":"infinity"},` +
	`"origin":"7301-16384","snapshot":"00000003-1B-1","rows_only":"no","bytes":9007199254740993,"rows":5}`

// TestRecord reads and writes a record with everything in it: no field may
// change, 64-bit integers least of all.
func TestRecord(t *testing.T) {
	r, err := Parse([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	if b.String() != line+"\n" {
		t.Errorf("got  %swant %s", b.String(), line)
	}
	if from, err := Bound(r.Slices[0].From); err != nil || from != MinBound {
		t.Errorf("from = %d, %v", from, err)
	}
	if until, err := Bound(r.Range.Until); err != nil || until != MaxBound || FormatBound(until) != r.Range.Until {
		t.Errorf("until = %d, %v", until, err)
	}
	if r.Bytes != 9007199254740993 {
		t.Errorf("bytes = %d", r.Bytes)
	}
	if r.Target() != (Name{"public", "daily"}) {
		t.Errorf("target = %s", r.Target())
	}
	r.View = nil
	if r.Target() != (Name{"public", "metrics"}) {
		t.Errorf("target = %s", r.Target())
	}
}

// edit returns the record with one field replaced, without it if value is "".
func edit(t *testing.T, field, value string) string {
	var f map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &f); err != nil {
		t.Fatal(err)
	}
	delete(f, field)
	if value != "" {
		f[field] = json.RawMessage(value)
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestUnknownFields(t *testing.T) {
	in := strings.TrimSuffix(line, "}") + `,"big":12345678901234567890,"nested":{"b":[1,2],"a":"<&>"},"zero":null}`
	r, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	var got, want any
	for _, x := range []struct {
		text string
		v    *any
	}{{b.String(), &got}, {in, &want}} {
		d := json.NewDecoder(strings.NewReader(x.text))
		d.UseNumber()
		if err := d.Decode(x.v); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %s\nwant %s", b.String(), in)
	}
	// A record inside another one is written by value.
	b.Reset()
	if err := Write(&b, struct{ Task Task }{*r}); err != nil ||
		!strings.Contains(b.String(), `"big":12345678901234567890`) {
		t.Errorf("inside: %s, %v", b.String(), err)
	}
	if r, err = Parse([]byte(line)); err != nil || r.Extra != nil {
		t.Errorf("extra = %v, %v", r.Extra, err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "expected one JSON object per line"},
		{"null", "expected one JSON object per line"},
		{`"x"`, "expected one JSON object per line"},
		{"[" + line + "]", "expected one JSON object per line"},
		{"{a:1}", "not a task record"}, // what xargs leaves of a record without -d
		{line[:len(line)-1], "not a task record"},
		{line + line, "not a task record"},
		{line + "x", "not a task record"},
		{"{}", `no version: not a bf task record (field "v" is missing)`},
		{edit(t, "v", ""), "no version"},
		{edit(t, "v", "null"), "no version"},
		{edit(t, "v", "3"), "record version 3: this bf reads versions 1 and 2"},
		{`{"v":3,"chunk":"of another shape"}`, "record version 3"},
		{edit(t, "v", "2"), "record version 2 without a kind"},
		{edit(t, "kind", `"slice"`), `kind "slice" in a record of version 1`},
		{edit(t, "kind", `"other"`), `kind "other": this bf does not know it`},
		{edit(t, "into", `{"schema":"a","name":"b"}`), "fields into and scan do not go with a chunk"},
		{edit(t, "v", `"1"`), `field "v" is no number`},
		{edit(t, "v", "1.5"), `field "v" is no number`},
		{edit(t, "task", "-1"), "task number -1 is negative"},
		{edit(t, "task", `"42"`), `field "task": a string does not belong there`},
		{edit(t, "task", "9223372036854775808"), `field "task": a number 9223372036854775808 does not`},
		{edit(t, "chunk", ""), "no chunk"},
		{edit(t, "chunk", `{"schema":"s"}`), "no chunk"},
		{edit(t, "chunk", `{"schema":"s","name":"a\u0000b"}`), "NUL"},
		{edit(t, "hypertable", ""), "no hypertable"},
		{edit(t, "hypertable", `{"schema":"a\u0000b","name":"n"}`), "NUL"},
		{edit(t, "view", `{"schema":"s"}`), "view without schema and name"},
		{edit(t, "view", `{"schema":"s","name":"a\u0000b"}`), "NUL"},
		{edit(t, "slices", ""), "no dimension slices"},
		{edit(t, "slices", "[]"), "no dimension slices"},
		{edit(t, "slices", `[{"from":"1","until":"2"}]`), "dimension slice without a column"},
		{edit(t, "slices", `[{"column":"a\u0000b","from":"1","until":"2"}]`), "NUL"},
		{edit(t, "slices", `[{"column":"time","from":"2","until":"1"}]`),
			`slice of dimension "time": from 2 is after until 1`},
		{edit(t, "slices", `[{"column":"time","from":"","until":"1"}]`), `bound "" is not a 64-bit integer`},
		{edit(t, "slices", `[{"column":"time","from":1,"until":"2"}]`),
			`field "slices.from": a number does not belong there`},
		{edit(t, "range", ""), `row range is on "", the primary dimension is "time"`},
		{edit(t, "range", `{"column":"device","from":"1","until":"2"}`), `row range is on "device"`},
		{edit(t, "range", `{"column":"time","from":"1","until":"9223372036854775808"}`), "is not a 64-bit integer"},
		{edit(t, "range", `{"column":"time","from":"-9223372036854775809","until":"1"}`), "is not a 64-bit integer"},
		{edit(t, "range", `{"column":"time","from":"1e3","until":"2000"}`), "is not a 64-bit integer"},
		{edit(t, "range", `{"column":"time","from":"3","until":"2"}`), "row range: from 3 is after until 2"},
	} {
		r, err := Parse([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.300s\n\t%v, want %q", c.in, err, c.want)
		}
		if r != nil {
			t.Errorf("%.300s\n\ta record besides the error", c.in)
		}
	}
}

func TestReader(t *testing.T) {
	second := edit(t, "task", "43")
	for _, in := range []string{
		line + "\n" + second + "\n",
		line + "\n" + second, // the last line without a newline
		"\n  \n" + line + "\r\n\n\t" + second + " \n\n",
	} {
		r := NewReader(strings.NewReader(in))
		var got []int64
		for {
			x, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%q: %v", in, err)
			}
			got = append(got, x.Task)
		}
		if fmt.Sprint(got) != "[42 43]" {
			t.Errorf("%q: tasks %v", in, got)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%q: after the end: %v", in, err)
		}
	}

	// A bad line is named by its number and does not hide the next one; a
	// record that was cut off is an error, not the end.
	r := NewReader(strings.NewReader("\n" + line + "\nwhat\n{\"v\":3}\n" + second + "\n" + line[:100]))
	for i, want := range []string{"", "task record on line 3: not a task record",
		"task record on line 4: record version 3", "", "task record on line 6: not a task record"} {
		x, err := r.Next()
		if want == "" {
			if err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			continue
		}
		var bad *BadRecord
		if x != nil || !errors.As(err, &bad) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("record %d: %v, want %q", i, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("end: %v", err)
	}

	r = NewReader(strings.NewReader(line + "\n" + strings.Repeat(" ", MaxLine) + line + "\n"))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err == nil || !strings.HasPrefix(err.Error(), "line 2: longer than") {
		t.Errorf("a line without end: %v", err)
	}

	r = Arguments([]string{line, " ", "{", second})
	for i, want := range []string{"", "task record: not a task record", ""} {
		if x, err := r.Next(); want == "" && err != nil || want != "" &&
			(x != nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("argument %d: %v, want %q", i, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last argument: %v", err)
	}

	broken := errors.New("connection reset")
	r = NewReader(io.MultiReader(strings.NewReader(line+"\n"), &failing{broken}))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, broken) {
		t.Errorf("an error of the input: %v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// TestWrite: a record is one line, whatever is in its names, and goes out in
// one write.
func TestWrite(t *testing.T) {
	r, err := Parse([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	r.Chunk.Name = "two\nlines \"quoted\" \u2028 & <tag>"
	w := &counting{}
	if err := Write(w, r); err != nil {
		t.Fatal(err)
	}
	if w.writes != 1 || strings.Count(w.String(), "\n") != 1 {
		t.Errorf("%d writes: %s", w.writes, w)
	}
	back, err := NewReader(&w.Buffer).Next()
	if err != nil || back.Chunk != r.Chunk {
		t.Errorf("%+v, %v", back, err)
	}
}

type counting struct {
	bytes.Buffer
	writes int
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}

func TestSameWork(t *testing.T) {
	base, err := Parse([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ field, value, want string }{
		{"task", "", ""},
		{"snapshot", `"another"`, ""},
		{"rows", "7", ""},
		{"later", "1", ""},
		{"chunk", `{"schema":"s","name":"c"}`, "chunk is _timescaledb_internal._hyper_1_2_chunk, staged as s.c"},
		{"hypertable", `{"schema":"public","name":"h"}`, "hypertable is public.metrics, staged as public.h"},
		{"view", "", "writes to public.daily, staged to write to public.metrics"},
		{"view", `{"schema":"public","name":"hourly"}`,
			"continuous aggregate is public.daily, staged as public.hourly"},
		{"range", `{"column":"time","from":"1","until":"9223372036854775807","partial":true}`,
			"row range is [9007199254740993, 9223372036854775807), staged as [1, 9223372036854775807)"},
		{"range", `{"column":"time","from":"9007199254740993","until":"9223372036854775807"}`,
			"row range is partial: true, staged as false"},
		{"slices", `[{"column":"time","from":"-9223372036854775808","until":"9223372036854775807"}]`,
			"2 dimension slices, staged with 1"},
		{"slices", `[{"column":"time","from":"1","until":"2"},{"column":"device","from":"0","until":"1073741823",` +
			`"hash":true}]`, `slice of dimension "time" is [-9223372036854775808, 9223372036854775807), ` +
			`staged as [1, 2)`},
	} {
		o, err := Parse([]byte(edit(t, c.field, c.value)))
		if err != nil {
			t.Fatal(err)
		}
		if why, same := base.SameWork(o); same != (c.want == "") || why != c.want {
			t.Errorf("%s %s: %q, want %q", c.field, c.value, why, c.want)
		}
	}
}
