package source

import (
	"errors"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

var table = &tsdb.Hypertable{Name: task.Name{Schema: "public", Name: "m"}, Columns: []pg.Column{
	{Name: "time", Type: "bigint", Binary: true},
	{Name: "twice", Type: "bigint", Binary: true, Generated: true},
	{Name: "Dev", Type: "text", Binary: true},
}}

func chunk(status int32) *tsdb.Chunk {
	return &tsdb.Chunk{Name: task.Name{Schema: "s", Name: "c"}, Status: status, Bytes: 77,
		Slices: []task.Slice{{Column: "time", From: "0", Until: "10"}}}
}

func TestCopies(t *testing.T) {
	const compressed, partial = tsdb.StatusCompressed, tsdb.StatusCompressed | tsdb.StatusPartial
	for _, c := range []struct {
		what string
		out  copyOut
		want string
		size int64
	}{
		{"uncompressed", copyRows(chunk(0), table, ""), `only "s"."c"`, 77},
		{"a part", copyRows(chunk(0), table, "x < 1"), `only "s"."c" where x < 1`, 77},
		{"decompressed", copyRows(chunk(compressed), table, ""), `"s"."c"`, 77},
		{"hidden", copyUncompressed(chunk(compressed), table), `only "s"."c" where false`, 0},
		{"beside batches", copyUncompressed(chunk(partial), table), `only "s"."c"`, 0},
	} {
		part := c.out.part
		want := `copy (select "time", "Dev" from ` + c.want + `) to stdout (format binary)`
		if c.out.sql != want || part.Bytes != c.size || len(part.Columns) != 2 || part.Relation != stream.Rows {
			t.Errorf("%s: %s\n%+v", c.what, c.out.sql, part)
		}
	}
	text := *table
	text.Columns = append(text.Columns[:2:2], pg.Column{Name: "p", Type: "aclitem"})
	out := copyRows(chunk(0), &text, "")
	if out.part.Format != stream.Text || !strings.HasSuffix(out.sql, "(format text)") {
		t.Errorf("a type without binary form: %s", out.sql)
	}
}

func TestWhyRows(t *testing.T) {
	hypercore := chunk(tsdb.StatusCompressed)
	hypercore.AM = "hypercore"
	for _, c := range []struct {
		chunk *tsdb.Chunk
		task  task.Task
		want  string
	}{
		{chunk(tsdb.StatusCompressed), task.Task{}, ""},
		{chunk(tsdb.StatusCompressed | tsdb.StatusPartial), task.Task{}, ""},
		{chunk(tsdb.StatusCompressed | tsdb.StatusUnordered), task.Task{}, "unordered"},
		{hypercore, task.Task{}, "hypercore"},
		{chunk(tsdb.StatusCompressed), task.Task{Range: task.Range{Partial: true}}, "only a part"},
		{chunk(tsdb.StatusCompressed), task.Task{RowsOnly: "other types"}, "other types"},
	} {
		if got := whyRows(c.chunk, &c.task); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.task, got, c.want)
		}
	}
}

// TestStaged: a chunk that is not what it was when it was staged is refused,
// with what to do.
func TestStaged(t *testing.T) {
	staging := &task.Task{Hypertable: table.Name, Chunk: task.Name{Schema: "s", Name: "c"}, Slices: chunk(0).Slices}
	other, moved, rewritten := *table, chunk(0), chunk(0)
	other.Name.Name = "n"
	moved.Slices = []task.Slice{{Column: "time", From: "0", Until: "20"}}
	rewritten.Rewritten = true
	if err := staged(chunk(0), table, staging); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		chunk    *tsdb.Chunk
		h        *tsdb.Hypertable
		want     string
		snapshot bool
	}{
		{chunk(0), nil, "does not belong to public.m", false},
		{chunk(0), &other, "does not belong to public.m", false},
		{moved, table, "covers another range", false},
		{rewritten, table, "rewritten", true},
	} {
		err := staged(c.chunk, c.h, staging)
		if err == nil || !strings.Contains(err.Error(), "source: chunk s.c: ") ||
			!strings.Contains(err.Error(), c.want) ||
			!strings.Contains(pg.Hint(err), "run bf-stage again") || errors.Is(err, ErrSnapshot) != c.snapshot {
			t.Errorf("%s: %v, hint %q", c.want, err, pg.Hint(err))
		}
	}
}
