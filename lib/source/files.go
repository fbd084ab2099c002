package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bf/lib/csv"
	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
)

// Files is a source that is a directory of CSV files. The directory comes from the command
// line or the environment of the user; nothing that a record names is outside of it, by
// whatever links.
type Files struct {
	dir  string
	root *os.Root
	// The files that were read last, the latest at the end. A compressed one is read on from
	// where it is: what comes before was read for other tasks.
	held  []*heldFile
	lines *stream.Lines // of the last task
}

// Lines tells where the rows of the last task stand.
func (s *Files) Lines() *stream.Lines { return s.lines }

type heldFile struct {
	path string
	raw  *os.File
	*csv.File
}

// OpenFiles opens the directory of a --source, csv:DIR.
func OpenFiles(source string) (*Files, error) {
	dir := strings.TrimPrefix(source, csvPrefix)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &pg.Error{Side: pg.Source, Object: "--source " + source, Err: err}
	}
	return &Files{dir: dir, root: root}, nil
}

// Close closes the directory and the files.
func (s *Files) Close() {
	for _, f := range s.held {
		f.close()
	}
	s.held = nil
	s.root.Close()
}

func (f *heldFile) close() {
	f.File.Close()
	f.raw.Close()
}

// Origin tells the directory from others. Only bf-stage asks: two directories may have files of the
// same names. bf-dump may see the files elsewhere, and their checksums tell it whether they are the same.
func (s *Files) Origin() (string, error) {
	dir, err := filepath.Abs(s.dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	return csvPrefix + strings.ToValidUTF8(dir, "?"), nil
}

// Below returns paths as seen from the directory, where some are absolute.
func (s *Files) Below(paths []string) (below []string, err error) {
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if filepath.IsAbs(path) {
			if path, err = filepath.Rel(dir, path); err != nil {
				return nil, err
			}
		}
		below = append(below, path)
	}
	return below, nil
}

// Open opens a file below the directory.
func (s *Files) Open(path string) (*csv.File, io.Closer, error) {
	raw, err := s.regular(path)
	if err != nil {
		return nil, nil, err
	}
	f, err := csv.NewFile(raw)
	if err != nil {
		raw.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, raw, nil
}

// regular opens what has to be a file. What is none is not waited for.
func (s *Files) regular(path string) (*os.File, error) {
	raw, err := s.root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	info, err := raw.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("is no file (%s)", info.Mode().Type())
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, nil
}

// file is a file of a record, opened or still open.
func (s *Files) file(path string) (*heldFile, error) {
	if i := slices.IndexFunc(s.held, func(f *heldFile) bool { return f.path == path }); i >= 0 {
		f := s.held[i]
		s.held = append(slices.Delete(s.held, i, i+1), f)
		return f, nil
	}
	f, raw, err := s.Open(path)
	if err != nil {
		return nil, err
	}
	if len(s.held) == csv.MostOpen {
		s.held[0].close()
		s.held = slices.Delete(s.held, 0, 1)
	}
	h := &heldFile{path, raw.(*os.File), f}
	s.held = append(s.held, h)
	return h, nil
}

// drop closes a file that something is wrong with: the next task looks anew.
func (s *Files) drop(path string) {
	s.held = slices.DeleteFunc(s.held, func(f *heldFile) bool {
		if f.path == path {
			f.close()
			return true
		}
		return false
	})
}

// Rows reads the blocks of a task. They must be what was mapped, to the byte, and hold as
// many rows of the range as were counted then.
func (s *Files) Rows(ctx context.Context, t *task.Task, begin func([]stream.Column) error,
	write func([]byte) error) (rows int64, err error) {
	if t.Kind != task.KindCSV {
		return 0, otherSource(t, "a directory of CSV files")
	}
	format, err := csv.Dialect(t.Scan.Dialect).Format()
	if err != nil {
		return 0, badCSV(t, err)
	}
	columns := columnsOf(t)
	r := csv.NewReader(strings.NewReader(""), format)
	if err := r.Columns(columns, t.Range.Column); err != nil {
		return 0, badCSV(t, err)
	}
	// Before there is any data: most of what can be wrong with files.
	if _, err := s.file(t.Scan.Files[0].Path); err != nil {
		return 0, refused(t, err)
	}
	if err := begin(kept(columns)); err != nil {
		return 0, err
	}
	s.lines = &stream.Lines{}
	for _, f := range t.Scan.Files {
		n, err := s.read(ctx, r, t, f, write)
		if err == nil && n != f.Rows {
			err = refused(t, fmt.Errorf("%s: %d rows of the range, %d when it was staged", f.Path, n, f.Rows))
		}
		if rows += n; err != nil {
			s.drop(f.Path)
			return rows, err
		}
	}
	return rows, nil
}

// read reads the blocks of one file.
func (s *Files) read(ctx context.Context, r *csv.Reader, t *task.Task, f task.File,
	write func([]byte) error) (rows int64, err error) {
	file, err := s.file(f.Path)
	if err != nil {
		return 0, refused(t, err)
	}
	if string(file.Codec()) != f.Codec {
		return 0, refused(t, fmt.Errorf("%s: %w: it is compressed in another way", f.Path, csv.ErrChanged))
	}
	r.File = f.Path
	for _, b := range f.Blocks {
		if ctx.Err() != nil {
			return rows, ctx.Err()
		}
		src, err := file.Block(csv.Block{Offset: b.Offset, Length: b.Length, Line: b.Line, Sum: b.Sum})
		if err == nil {
			r.Reset(src, b.Line, b.Offset)
			var n int64
			var cut bool
			n, cut, err = s.inRange(r, t, write)
			if rows += n; err == nil && cut {
				err = atEnd(file)
			}
		}
		var bad *csv.Error
		switch {
		case err == nil:
		case errors.Is(err, ErrOutput):
			return rows, err
		case errors.As(err, &bad):
			return rows, badCSV(t, err)
		default:
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				err = csv.ErrChanged
			}
			return rows, refused(t, fmt.Errorf("%s, from line %d on: %w", f.Path, b.Line, err))
		}
	}
	return rows, nil
}

// atEnd refuses a file whose last record had no line end, and goes on now.
func atEnd(f io.Reader) error {
	var next [1]byte
	switch n, err := io.ReadFull(f, next[:]); {
	case n == 1 && next[0] != '\n' && next[0] != '\r':
		return csv.ErrChanged
	case n == 0 && err != io.EOF:
		return err
	}
	return nil
}

// inRange writes the rows of a block that are of the task's range. cut says that the last one
// has no line end.
func (s *Files) inRange(r *csv.Reader, t *task.Task, write func([]byte) error) (rows int64, cut bool, err error) {
	lo, hi := t.Range.Bounds()
	began := false // with a row that comes in pieces: such a block has no other
	for {
		row, err := r.Next()
		if err == io.EOF {
			return rows, cut, nil
		}
		if err != nil {
			return rows, cut, err
		}
		cut = row.Cut
		if !row.More && (row.Time < lo || row.Time >= hi) {
			if began {
				return rows, cut, csv.ErrChanged
			}
			continue
		}
		if began = row.More; !row.More {
			rows++
			s.lines.Add(r.File, row.Line)
		}
		if err := write(row.Text); err != nil {
			return rows, cut, err
		}
	}
}

// refused is a file that is not what was staged.
func refused(t *task.Task, err error) error {
	return &pg.Error{Side: pg.Source, Object: t.String(), Err: err,
		Hint: "is --source the directory that was staged? If the files are meant to be others now, run bf-stage again"}
}
