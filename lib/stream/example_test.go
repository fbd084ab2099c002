package stream_test

import (
	"bytes"
	"fmt"
	"io"

	"bf/lib/stream"
	"bf/lib/task"
)

// A segment is good only if all of it came, its trailer included: NextPart says so after
// the last part, by io.EOF.
func Example() {
	t := task.Task{V: task.Version, Task: 1, Hypertable: task.Name{Schema: "public", Name: "metrics"},
		Chunk:  task.Name{Schema: "_timescaledb_internal", Name: "_hyper_1_1_chunk"},
		Slices: []task.Slice{{Column: "n", From: "0", Until: "1000"}}, Range: task.NewRange("n", 0, 1000)}
	var file bytes.Buffer
	w := stream.NewWriter(&file, stream.Compression{})
	err := w.Begin(&stream.Header{Task: t, State: stream.StateChunk, Parts: []stream.Part{{Relation: stream.Rows,
		Format: stream.Text, Columns: []stream.Column{{Name: "n", Type: "integer"}}}}})
	if err == nil {
		_, err = io.WriteString(w, "1\n2\n")
	}
	for _, end := range []func() error{
		func() error { return w.EndPart(2) }, w.End, func() error { return w.Close(false) }} {
		if err == nil {
			err = end()
		}
	}
	if err != nil {
		panic(err)
	}

	r := stream.NewReader(&file)
	h, err := r.Next()
	if err != nil {
		panic(err)
	}
	for {
		part, err := r.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			panic(err)
		}
		rows, _ := r.Part()
		fmt.Printf("%s, %s: %d rows: %q\n", h.Task.Hypertable, part.Relation, rows, data)
	}
	_, err = r.Next()
	fmt.Println(err == io.EOF, r.End().Tasks)
	// Output:
	// public.metrics, rows: 2 rows: "1\n2\n"
	// true 1
}
