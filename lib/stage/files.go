package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"bf/lib/csv"
	"bf/lib/task"
)

// BadFiles lists what is wrong with files. Nothing is staged.
type BadFiles struct {
	First []error // as many as people read
	N     int
}

func (b *BadFiles) Error() string {
	if b.N == 1 {
		return b.First[0].Error()
	}
	return fmt.Sprintf("%d records or files are bad: nothing is staged", b.N)
}

// Suggest is what package cli asks an error.
func (b *BadFiles) Suggest() string {
	var bad *csv.Error
	if errors.As(b.First[0], &bad) && bad.Line == 1 {
		return "--no-header, --columns, --delimiter, --quote and --null say how the CSV is written"
	}
	return "correct them and run it again; --reject FILE leaves bad records out and writes them there"
}

const mostBad = 20

func (b *BadFiles) add(err error) {
	if b.N++; len(b.First) < mostBad {
		b.First = append(b.First, err)
	}
}

// mapping finds out which blocks of files hold the rows of which slices.
type mapping struct {
	*filling
	reader  *csv.Reader
	columns []csv.Column // of the fields of all files, once the first one is read
	first   string       // whose columns they are
	bad     BadFiles
	outside int64 // rows that are not in the range
	left    int   // records that were left out
	files   []mappedFile
}

type mappedFile struct {
	path   string
	codec  csv.Codec
	blocks []csv.Block
}

// CSV plans for files: all of them are read once, and a task is made of each slice of the
// target's grid in [From, Until) that they have rows of.
func CSV(ctx context.Context, o Options, f Files) (*Plan, error) {
	c, err := newFilling(ctx, o, f)
	if err != nil {
		return nil, err
	}
	m := &mapping{filling: c, reader: csv.NewReader(strings.NewReader(""), c.format)}
	if err := m.read(ctx, o.Progress); err != nil {
		return nil, err
	}
	p := csvPlan(m.h, m.Origin)
	if p.Tasks, err = m.tasks(o.Any); err != nil {
		return nil, err
	}
	if m.left > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d bad records are left out", m.left))
	}
	if m.outside > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d rows are not from %s to %s: they are left out",
			m.outside, o.From, o.Until))
	}
	return p, spell(ctx, o.Target, m.h, p.Tasks)
}

// read maps all files.
func (m *mapping) read(ctx context.Context, progress func(string, ...any)) error {
	seen := map[string]bool{}
	same := map[string]string{}
	for i, path := range m.Paths {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		path = filepath.Clean(path)
		switch {
		case seen[path]:
			return &BadArgument{Flag: "FILE", Err: fmt.Errorf("%s is there twice", path)}
		case !utf8.ValidString(path):
			return &BadArgument{Flag: "FILE", Err: fmt.Errorf("%q: a name that is not UTF-8", path)}
		}
		seen[path] = true
		f, err := m.file(path)
		if err != nil {
			m.bad.add(err)
		}
		if err != nil || len(f.blocks) == 0 {
			continue
		}
		sums := fmt.Sprint(f.blocks)
		if other, ok := same[sums]; ok {
			m.bad.add(fmt.Errorf("%s: the same rows as %s: they would be there twice", path, other))
		}
		same[sums] = path
		if m.files = append(m.files, f); progress != nil && (i+1)%100 == 0 {
			progress("%d of %d files mapped", i+1, len(m.Paths))
		}
	}
	if m.bad.N > 0 {
		return &m.bad
	}
	return nil
}

// file maps one file.
func (m *mapping) file(path string) (out mappedFile, err error) {
	f, c, err := m.Open(path)
	if err != nil {
		return out, err
	}
	defer c.Close()
	defer f.Close()
	out = mappedFile{path: path, codec: f.Codec()}
	r := m.reader
	r.Start(path, f)
	if err := m.header(r); err != nil {
		return out, err
	}
	read := csv.Mapper{
		Slice: func(time int64) (from, until int64, ok bool) {
			s := m.clip(m.grid.at(time))
			return s.From, s.Until, time >= m.in.From && time < m.in.Until
		},
		Block: func(b csv.Block) error { out.blocks = append(out.blocks, b); return nil },
		Bad:   m.reject,
	}
	err = read.Read(r)
	m.outside += read.Outside
	var bad *csv.Error
	if err != nil && !errors.As(err, &bad) {
		err = fmt.Errorf("%s, after line %d: %w", path, r.Line(), err)
	}
	return out, err
}

// header reads the header, where there is one, and says what the fields are: the same in all
// files, so that a task can read from several.
func (m *mapping) header(r *csv.Reader) error {
	var columns []csv.Column
	for _, c := range m.scan.Columns {
		columns = append(columns, csv.Column(c))
	}
	if !m.NoHeader {
		names, err := r.Header()
		if err == io.EOF {
			return fmt.Errorf("%s: is empty: not even a header", r.File)
		}
		if err == nil && m.Columns == "" {
			columns, err = csv.Match(r.File, names, columns)
		}
		if err != nil {
			return err
		}
	}
	if err := r.Columns(columns, m.h.Dimensions[0].Column); err != nil {
		return fmt.Errorf("%s:1: %w", r.File, err)
	}
	switch {
	case m.columns == nil:
		m.columns, m.first = columns, r.File
	case !slices.Equal(m.columns, columns):
		return fmt.Errorf("%s:1: other columns than %s, or in another order: stage them apart, or give --columns",
			r.File, m.first)
	}
	return nil
}

// reject gets a bad record.
func (m *mapping) reject(bad *csv.Error, raw []byte) error {
	switch {
	case bad.Fatal: // it ends the file, and is its error
		return nil
	case m.Reject == nil:
		m.bad.add(bad)
		return nil
	}
	m.left++
	if raw == nil {
		raw = fmt.Appendf(nil, "(a record of more than %d bytes)\n", csv.Window)
	}
	if _, err := fmt.Fprintf(m.Reject, "%s\n%s", strings.ReplaceAll(bad.Error(), "\n", " "), raw); err != nil {
		return fmt.Errorf("--reject: %w", err)
	}
	return nil
}

// tasks makes a task of each slice that has rows, in the order of the files, so that a lane
// reads a compressed one forward.
func (m *mapping) tasks(any bool) ([]*task.Task, error) {
	scan := *m.scan
	scan.Columns, scan.By, scan.Header = nil, task.ByBlocks, task.HeaderNone
	for _, c := range m.columns {
		scan.Columns = append(scan.Columns, task.Column(c))
	}
	bySlice := map[int64]*task.Task{}
	var tasks []*task.Task
	var size, read int64
	for _, f := range m.files {
		for _, b := range f.blocks {
			all := int64(0)
			for _, s := range b.Rows {
				all += s.Rows
			}
			for _, s := range b.Rows {
				t := bySlice[s.From]
				if t == nil {
					t = m.task(s.From, scan)
					bySlice[s.From] = t
					tasks = append(tasks, t)
				}
				addBlock(t, f, b, s.Rows)
				t.Scan.Rows += s.Rows
				t.Rows += s.Rows
				t.Bytes += max(b.Length*s.Rows/all, 1)
				read += b.Length
			}
			size += b.Length
		}
	}
	if len(tasks) > mostSlices {
		return nil, tooMany("the rows are of")
	}
	for _, t := range tasks {
		read += skipped(t.Scan.Files)
	}
	return tasks, m.inOrder(size, read, any)
}

// skipped is how much of compressed files a task reads for nothing: if it has more of them than
// stay open, each is decompressed from its beginning.
func skipped(files []task.File) (size int64) {
	if len(files) <= csv.MostOpen {
		return 0
	}
	for _, f := range files {
		if f.Codec == string(csv.Plain) {
			continue
		}
		last := f.Blocks[len(f.Blocks)-1]
		size += last.Offset + last.Length
		for _, b := range f.Blocks {
			size -= b.Length
		}
	}
	return size
}

// mostTimes is how often files may be read, over all tasks.
const mostTimes = 10

// inOrder refuses files whose rows are in no order of time, unless they are small.
func (m *mapping) inOrder(size, read int64, any bool) error {
	if any || read <= mostTimes*size || read <= 16*csv.BlockSize {
		return nil
	}
	return &BadArgument{Flag: "FILE",
		Err: fmt.Errorf("the rows are in no order of %q: over all chunks the files would be read %d times",
			m.h.Dimensions[0].Column, read/cmp.Or(size, 1)),
		Hint: "sort them by time (order by in the export), or make the target's chunks larger; " +
			"of many compressed files of the same times make one, or decompress them; " +
			"--scan any stages them all the same"}
}

// task is the record of the slice that holds a value, still without files.
func (m *mapping) task(at int64, scan task.Scan) *task.Task {
	t := m.filling.task(m.grid.at(at), &scan)
	t.Kind, t.Origin = task.KindCSV, m.Origin
	return t
}

func addBlock(t *task.Task, f mappedFile, b csv.Block, rows int64) {
	files := t.Scan.Files
	if len(files) == 0 || files[len(files)-1].Path != f.path {
		files = append(files, task.File{Path: f.path, Codec: string(f.codec)})
	}
	last := &files[len(files)-1]
	last.Rows += rows
	last.Blocks = append(last.Blocks, task.FileBlock{Offset: b.Offset, Length: b.Length, Line: b.Line, Sum: b.Sum})
	t.Scan.Files = files
}
