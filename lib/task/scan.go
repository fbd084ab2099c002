package task

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// VersionOther is the version of the records whose source is no chunk. Tools that
// know chunks only would take such a record for a chunk that was dropped, and
// complete it without a row: they refuse the version.
const VersionOther = 2

// The kinds of records; a chunk's has none.
const (
	KindChunk = ""
	KindSlice = "slice" // of a relation of PostgreSQL that is no hypertable: Hypertable and Chunk name it
	KindCSV   = "csv"   // of CSV files
	KindExec  = "exec"  // what a command prints
)

// Scan says how the rows of a record that is of no chunk are read.
type Scan struct {
	// By is ByRange or ByBlocks.
	By string `json:"by,omitempty"`
	// Rows is how many rows were counted in the blocks when the task was staged. A
	// dump that finds another number fails: the map is not true any more.
	Rows int64 `json:"rows,omitempty,string"`
	// From and Until are what was staged of the relation when its blocks were mapped, in
	// all tasks together, as bounds of a Range are: a count of all rows in between
	// finds those that have no task.
	From  string `json:"from,omitempty"`
	Until string `json:"until,omitempty"`
	// Empty are the relations below the slice's that may hold rows of the range by what
	// their constraints say, and held none when the blocks were mapped. A further one has
	// come later.
	Empty []Name `json:"empty,omitempty"`
	// Columnstore is set where the target compresses the rows as they arrive.
	Columnstore bool `json:"columnstore,omitempty"`
	// Relations are those that may hold rows of the range: the relation itself, its
	// partitions or the children that inherit from it. Each is read alone (ONLY).
	Relations []Leaf `json:"relations,omitempty"`

	// Of CSV: the columns that the fields may fill, in the order of the fields unless
	// Header has their names (by place, one without a name is left out), and how they
	// are written.
	Columns []Column `json:"columns,omitempty"`
	Header  string   `json:"header,omitempty"`
	Dialect Dialect  `json:"dialect,omitzero"`
	// Files are those of CSV that have rows of the range, in the order in which they are read.
	Files []File `json:"files,omitempty"`
}

// What the first record of CSV is.
const (
	HeaderNames = ""     // the names of the columns
	HeaderSkip  = "skip" // to be skipped
	HeaderNone  = "none" // data already
)

// File is a file of CSV, and the blocks of it that have rows of the range.
type File struct {
	// Path is below the directory that the source names, whoever reads the record.
	Path   string      `json:"path"`
	Codec  string      `json:"codec,omitempty"` // how it is compressed, as package csv has it
	Rows   int64       `json:"rows,string"`     // of the range, in the blocks
	Blocks []FileBlock `json:"blocks"`
}

// FileBlock is a part of a file, decompressed. Line is the one in which it begins, and Sum
// its CRC-32C: a file that has changed is refused.
type FileBlock struct {
	Offset, Length, Line int64
	Sum                  uint32
}

// MarshalText writes offset:length:line:crc.
func (b FileBlock) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d:%d:%d:%08x", b.Offset, b.Length, b.Line, b.Sum), nil
}

// UnmarshalText is the inverse of MarshalText.
func (b *FileBlock) UnmarshalText(text []byte) error {
	var n FileBlock
	parts := strings.Split(string(text), ":")
	if len(parts) != 4 {
		return fmt.Errorf("block %q of a file: not offset:length:line:crc", text)
	}
	for i, to := range []*int64{&n.Offset, &n.Length, &n.Line} {
		v, err := strconv.ParseInt(parts[i], 10, 64)
		if err != nil || v < 0 {
			return fmt.Errorf("block %q of a file: not offset:length:line:crc", text)
		}
		*to = v
	}
	sum, err := strconv.ParseUint(parts[3], 16, 32)
	if err != nil || n.Length == 0 || n.Line == 0 || n.Offset+n.Length < 0 {
		return fmt.Errorf("block %q of a file: not offset:length:line:crc", text)
	}
	n.Sum = uint32(sum)
	*b = n
	return nil
}

// Column is a column of the target.
type Column struct {
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
}

// Dialect is how CSV is written, as package csv has it.
type Dialect struct {
	Delimiter string `json:"delimiter,omitempty"`
	Quote     string `json:"quote,omitempty"`
	Escape    string `json:"escape,omitempty"`
	Null      string `json:"null,omitempty"`
	Encoding  string `json:"encoding,omitempty"`
	Zone      string `json:"zone,omitempty"`
	Unit      string `json:"time_unit,omitempty"`
}

// How a Scan finds the rows.
const (
	ByRange  = "range"  // by a condition on the time column
	ByBlocks = "blocks" // and by the blocks that hold them
)

// Leaf is a relation that holds rows itself.
type Leaf struct {
	Name
	// Filenode is that of the table when its blocks were mapped; a rewritten table
	// has another one. Empty by range.
	Filenode string `json:"filenode,omitempty"`
	// Blocks are ranges of blocks "first-last", the last one exclusive.
	Blocks []Blocks `json:"blocks,omitempty"`
}

// Blocks is a range of blocks of a table: First inclusive, Until exclusive.
type Blocks struct{ First, Until uint32 }

// MarshalText writes first-until.
func (b Blocks) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d-%d", b.First, b.Until), nil
}

// UnmarshalText is the inverse of MarshalText.
func (b *Blocks) UnmarshalText(text []byte) error {
	first, until, _ := strings.Cut(string(text), "-")
	lo, err := strconv.ParseUint(first, 10, 32)
	if err == nil {
		var hi uint64
		if hi, err = strconv.ParseUint(until, 10, 32); err == nil && lo < hi {
			*b = Blocks{uint32(lo), uint32(hi)}
			return nil
		}
	}
	return fmt.Errorf("blocks %q: not first-until", text)
}

// sameScan is the difference of two scans in words, "" if there is none. From, Until and
// Empty do not count: they are about other tasks as well.
func sameScan(a, b *Scan) string {
	switch {
	case (a == nil) != (b == nil):
		return "only one of them says how it is read"
	case a == nil:
		return ""
	case a.By != b.By:
		return fmt.Sprintf("read by %s, staged to be read by %s", a.By, b.By)
	case a.Rows != b.Rows:
		return fmt.Sprintf("%d rows in its blocks, staged with %d", a.Rows, b.Rows)
	case a.Columnstore != b.Columnstore:
		return "only one of them says that its rows are compressed as they arrive"
	case !slices.EqualFunc(a.Relations, b.Relations, func(x, y Leaf) bool {
		return x.Name == y.Name && x.Filenode == y.Filenode && slices.Equal(x.Blocks, y.Blocks)
	}):
		return "other relations or blocks than staged"
	case !slices.Equal(a.Columns, b.Columns) || a.Header != b.Header || a.Dialect != b.Dialect:
		return "other columns or another dialect than staged"
	case !slices.EqualFunc(a.Files, b.Files, func(x, y File) bool {
		return x.Path == y.Path && x.Codec == y.Codec && x.Rows == y.Rows && slices.Equal(x.Blocks, y.Blocks)
	}):
		return "other files or blocks than staged"
	}
	return ""
}

// validate checks a scan that was read from outside.
func (s *Scan) validate(kind string) error {
	switch {
	case kind == KindSlice && s == nil:
		return errors.New("no scan: a slice says how it is read")
	case kind == KindExec && (s == nil || len(s.Columns) == 0):
		return errors.New("no scan: the output of a command has columns")
	case kind == KindCSV && (s == nil || s.By != ByBlocks || len(s.Columns) == 0 || len(s.Files) == 0):
		return errors.New("no scan by blocks of files, with columns: CSV is read by it")
	case s == nil:
		return nil
	case kind == KindSlice && s.By != ByRange && s.By != ByBlocks:
		return fmt.Errorf("scan by %q: neither range nor blocks", s.By)
	case kind == KindSlice && len(s.Relations) == 0:
		return errors.New("scan without relations")
	case s.Rows < 0:
		return fmt.Errorf("scan of %d rows", s.Rows)
	}
	for _, b := range []string{s.From, s.Until} {
		if _, err := Bound(b); b != "" && err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	if s.Header != HeaderNames && s.Header != HeaderSkip && s.Header != HeaderNone {
		return fmt.Errorf("header %q of a scan: this bf does not know it", s.Header)
	}
	for _, f := range s.Files {
		if f.Path == "" || strings.ContainsRune(f.Path, 0) || len(f.Blocks) == 0 {
			return fmt.Errorf("file %q of a scan without a path or blocks", f.Path)
		}
	}
	for _, l := range s.Relations {
		switch {
		case l.Schema == "" || l.Name.Name == "":
			return errors.New("relation of a scan without schema and name")
		case strings.ContainsRune(l.Schema+l.Name.Name, 0):
			return errors.New("name with a NUL byte")
		case s.By == ByBlocks && (l.Filenode == "" || len(l.Blocks) == 0):
			return fmt.Errorf("relation %s of a scan by blocks without filenode or blocks", l.Name)
		}
	}
	return nil
}
