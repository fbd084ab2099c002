package source

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"bf/lib/csv"
	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
)

// CSV is a source that is no database: a Command or Files.
type CSV interface {
	// Rows reads the rows of a task. begin gets the columns, before the first of the
	// rows, which write gets as COPY text. The rows are good only if there is no error.
	Rows(ctx context.Context, t *task.Task, begin func([]stream.Column) error,
		write func([]byte) error) (rows int64, err error)
	// Lines tells where the rows of the last task stand; nil where there are no files.
	Lines() *stream.Lines
	Close()
}

// The forms of --source that are no connection string.
const (
	execPrefix = "exec:"
	csvPrefix  = "csv:"
)

// IsCSV reports whether a --source is of CSV.
func IsCSV(source string) bool { return IsCommand(source) || IsFiles(source) }

// IsCommand reports whether a --source is of the form exec:COMMAND.
func IsCommand(source string) bool { return strings.HasPrefix(source, execPrefix) }

// IsFiles reports whether a --source is of the form csv:DIR.
func IsFiles(source string) bool { return strings.HasPrefix(source, csvPrefix) }

// OpenCSV returns the CSV of a --source, nil of a connection string. stderr is where
// that of a command goes.
func OpenCSV(source string, stderr io.Writer) (CSV, error) {
	if shell, ok := strings.CutPrefix(source, execPrefix); ok {
		return &Command{shell: shell, stderr: stderr}, nil
	}
	if IsFiles(source) {
		return OpenFiles(source)
	}
	return nil, nil
}

// otherSource refuses a task that was staged from another kind of source.
func otherSource(t *task.Task, what string) error {
	return &pg.Error{Side: pg.Source, Object: t.String(),
		Err:  errors.New("--source is " + what + ", and the task was not staged from one"),
		Hint: "give --source as it was given to bf-stage"}
}

// CSVDumper dumps CSV.
type CSVDumper struct {
	CSV
	w       *stream.Writer
	version string
}

// NewCSV returns a Dumper that writes to w. version is the tool's own, for the
// stream's headers.
func NewCSV(from CSV, w *stream.Writer, version string) *CSVDumper {
	return &CSVDumper{from, w, version}
}

// Dump writes the segment of one task, as Dumper.Dump does.
func (d *CSVDumper) Dump(ctx context.Context, t *task.Task) (res Result, err error) {
	s := segment{d: d, t: t}
	res.Rows, err = d.Rows(ctx, t, s.begin, s.write)
	res.Bytes = s.bytes
	if err == nil {
		err = s.open(int64(len(s.held)))
	}
	if err == nil {
		if err = output(d.w.EndLines(res.Rows, d.Lines())); err == nil {
			err = output(d.w.End())
		}
	}
	if err == nil || errors.Is(err, ErrOutput) {
		return res, err
	}
	return res, abort(d.w, s.begun, d.header(t, nil), err)
}

// segment is one of a task whose size may not be known before: its header says whether
// there is much, and waits for as much as tells that.
type segment struct {
	d       *CSVDumper
	t       *task.Task
	columns []stream.Column
	held    []byte // the first rows, before the header
	begun   bool
	bytes   int64 // of all rows
}

// much is what bf-load takes for a chunk that is worth a table of its own.
const much = 1 << 20

func (s *segment) begin(columns []stream.Column) error {
	if s.columns = columns; s.t.Bytes == 0 {
		return nil
	}
	return s.open(s.t.Bytes)
}

func (s *segment) write(text []byte) error {
	s.bytes += int64(len(text))
	if s.begun {
		_, err := s.d.w.Write(text)
		return output(err)
	}
	if s.held = append(s.held, text...); len(s.held) < much {
		return nil
	}
	return s.open(int64(len(s.held)))
}

// open writes the header, if it has not been written, and what was held back.
func (s *segment) open(bytes int64) error {
	if s.begun {
		return nil
	}
	s.begun = true
	err := s.d.w.Begin(s.d.header(s.t, []stream.Part{{Relation: stream.Rows, Format: stream.Text,
		Columns: s.columns, Bytes: bytes}}))
	if err == nil && len(s.held) > 0 {
		_, err = s.d.w.Write(s.held)
	}
	s.held = nil
	return output(err)
}

func (d *CSVDumper) header(t *task.Task, parts []stream.Part) *stream.Header {
	return &stream.Header{Task: *t, State: stream.StateChunk, Parts: slices.Clone(parts),
		Source: stream.Source{BF: d.version}}
}

// kept are the columns that the fields fill.
func kept(fields []csv.Column) (columns []stream.Column) {
	for _, c := range fields {
		if c.Name != "" {
			columns = append(columns, stream.Column(c))
		}
	}
	return columns
}

// keyColumn is the time column.
func keyColumn(t *task.Task) stream.Column {
	for _, c := range t.Scan.Columns {
		if c.Name == t.Range.Column {
			return stream.Column(c)
		}
	}
	return stream.Column{Name: t.Range.Column, Type: "unknown"}
}

func columnsOf(t *task.Task) (columns []csv.Column) {
	for _, c := range t.Scan.Columns {
		columns = append(columns, csv.Column(c))
	}
	return columns
}
