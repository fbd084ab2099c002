package verify

import (
	"context"
	"errors"
	"io"
	"slices"

	"bf/lib/pg"
	"bf/lib/source"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// enterCSV reads the CSV of a task again. Its rows go into a temporary
// table on a second connection to the target: the server's own cast makes values of it,
// as it did when they were loaded.
func enterCSV(ctx context.Context, db *tsdb.DB, text source.CSV, t *task.Task) (*side, error) {
	s := &side{db: db}
	h, err := db.HypertableFor(ctx, t.Target(), nil)
	if err != nil {
		return s, err
	}
	if h == nil {
		return s, &pg.Error{Side: pg.Target, Object: t.Target().String(), Err: errors.New("is not there any more"),
			Hint: "create it again and run bf-stage again"}
	}
	ctx, cancel := context.WithCancel(ctx)
	columns, done := make(chan []stream.Column, 1), make(chan struct{})
	out, in := io.Pipe()
	defer func() { // one task at a time
		cancel()
		out.Close()
		<-done
	}()
	go func() {
		defer close(done)
		_, err := text.Rows(ctx, t, func(cs []stream.Column) error { columns <- cs; return nil },
			func(row []byte) error { _, err := in.Write(row); return err })
		close(columns)
		in.CloseWithError(err) // nil is the end
	}()
	printed, ok := <-columns
	if !ok {
		_, err := out.Read(nil)
		return s, err
	}
	var names []string
	for _, c := range printed {
		names = append(names, c.Name)
	}
	only := *h
	only.Columns = slices.DeleteFunc(slices.Clone(h.Columns), func(c pg.Column) bool {
		return !slices.Contains(names, c.Name)
	})
	s.h, s.rows = &only, "pg_temp.bf_rows"
	_, err = db.Exec(ctx, "begin isolation level repeatable read read write;"+
		" create temporary table bf_rows on commit drop as select "+pg.Idents(names)+
		" from "+pg.Ident(h.Name.Schema, h.Name.Name)+" with no data")
	if err == nil {
		_, err = db.CopyIn(ctx, out, "copy pg_temp.bf_rows ("+pg.Idents(names)+") from stdin")
	}
	return s, err
}
