package stream

import (
	"bytes"
	"io"
	"testing"

	"bf/lib/task"
)

func TestRoundTrip(t *testing.T) {
	for _, c := range []string{"none", "zstd", "zstd:9", "s2"} {
		comp, err := ParseCompression(c)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := NewWriter(&b, comp)
		h := &Header{Task: task.Task{V: 1, Task: 4, Hypertable: task.Name{Schema: "a", Name: "b"}, Chunk: task.Name{Schema: "c", Name: "d"}, Slices: []task.Slice{{Column: "t", From: "0", Until: "1"}}, Range: task.Range{Column: "t", From: "0", Until: "1"}}, State: StateChunk, Parts: []Part{{Relation: Rows, Format: Binary, Columns: []Column{{Name: "a", Type: "int"}}}}}
		if err := w.Begin(h); err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte("hello world 123"), 100000)
		w.Write(data)
		if err := w.EndPart(3); err != nil {
			t.Fatal(err)
		}
		if err := w.End(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(false); err != nil {
			t.Fatal(err)
		}
		t.Log(c, b.Len())
		r := NewReader(&b)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.NextPart(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatal(err, len(got))
		}
		if _, err := r.NextPart(); err != io.EOF {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatal(err)
		}
	}
}
