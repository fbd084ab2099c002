// Package stream reads and writes the dump format of bf: what bf-dump prints
// and bf-load reads. It knows nothing of databases.
//
// The stream proves its own end: a reader knows from the bytes alone that a task
// arrived whole, and that the dump came to its proper end. The format is
// specified in bf-stream(5), bf-stream.5 in this directory.
package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"bf/lib/task"
)

// Version is the version of the stream format. A reader refuses any other.
const Version = 1

// MaxFrame is the largest payload of a data frame, as it travels and
// decompressed.
const MaxFrame = 1 << 20

const (
	// magic opens every segment. A byte above 127, CR LF, ^Z and LF are there
	// to show what a transfer in text mode did to the stream.
	magic = "\x89bf\r\n\x1a\n\x01"

	frameHead = 1 + 4 // type and length
	frameSum  = 4     // checksum

	maxHeader = 4 << 20
	maxMark   = 64 << 10 // E, T, X and Z
)

// The types of frames.
const (
	frameHeader  = 'H' // JSON: Header
	frameData    = 'D'
	framePacked  = 'd' // data, one block of the header's codec
	framePartEnd = 'E' // JSON: sum
	frameTrailer = 'T' // JSON: sum; only after the source's COPY completed
	frameAbort   = 'X' // JSON: AbortError
	frameEnd     = 'Z' // JSON: End
)

// limit returns the largest payload of a frame of type t, 0 if there is no
// such type.
func limit(t byte) int {
	switch t {
	case frameHeader:
		return maxHeader
	case frameData, framePacked:
		return MaxFrame
	case framePartEnd, frameTrailer, frameAbort, frameEnd:
		return maxMark
	}
	return 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header opens a segment: all that a loader must know before the data.
type Header struct {
	V     int       `json:"v"` // Version; set by the Writer
	Task  task.Task `json:"task"`
	State string    `json:"state"`
	// Compression is the codec of the segment's d frames: none, zstd or s2.
	// Set by the Writer.
	Compression string `json:"compression"`
	Source      Source `json:"source"`
	// Chunk is the state of the source chunk as package source describes it
	// to package target; the stream only carries it.
	Chunk json.RawMessage `json:"chunk,omitempty"`
	Parts []Part          `json:"parts,omitempty"`
}

// whole reports whether a trailer may follow the last part.
func (h *Header) whole() bool { return h.State == StateGone || len(h.Parts) > 0 }

// The states of a segment.
const (
	StateChunk = "chunk" // the parts of the chunk follow
	StateGone  = "gone"  // the chunk no longer exists on the source: no parts
)

// Source is what a loader must know of the server the data comes from.
type Source struct {
	Postgres    int    `json:"postgres"` // server_version_num
	TimescaleDB string `json:"timescaledb"`
	BF          string `json:"bf"` // version of the tool that wrote the segment
}

// Part describes the data of one relation of the chunk.
type Part struct {
	Relation string   `json:"relation"`
	Format   string   `json:"format"`
	Columns  []Column `json:"columns"`
	Bytes    int64    `json:"bytes,omitempty"` // estimate, for progress only
}

// The relations of a part.
const (
	Rows       = "rows"       // rows of the chunk as its users see them
	Compressed = "compressed" // the chunk's compressed relation as it is
)

// The formats of a part: those of COPY.
const (
	Binary = "binary"
	Text   = "text"
)

// Column is a column of a part; the data has them in this order.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"` // as format_type() spells it
}

// End is the end mark of a stream.
type End struct {
	Tasks   int  `json:"tasks"`   // segments in the stream
	Aborted int  `json:"aborted"` // those of them that ended in an abort
	Stopped bool `json:"stopped"` // the dump ended, by a failure or on request, before it had done all its tasks
}

// sum is the content of an E and of a T frame.
type sum struct {
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
}

var (
	// ErrCorrupt marks a stream whose bytes are not what a Writer wrote.
	ErrCorrupt = errors.New("stream is damaged")
	// ErrVersion marks a stream that is in order but that this version does
	// not read: another version of the format, or a part or codec it does
	// not know.
	ErrVersion = errors.New("stream of another version of bf")
	// ErrNoEnd marks a stream that stops before its end mark: the dump
	// failed, was killed, or the connection broke.
	ErrNoEnd = errors.New("stream without an end")
)

// AbortError says that the source failed in the middle of a task. The segments
// that follow stand on their own.
type AbortError struct {
	Message  string `json:"message"`  // complete, for people
	SQLState string `json:"sqlstate"` // for programs; empty if no server said no
}

func (e *AbortError) Error() string { return "the dump failed: " + e.Message }

// check reports what in a header this version can't read.
func (h *Header) check() error {
	if h.V != Version {
		return fmt.Errorf("%w: header version %d, this bf-load reads version %d", ErrVersion, h.V, Version)
	}
	if err := h.Task.Validate(); err != nil {
		return fmt.Errorf("task record: %w", err)
	}
	if !knownCodec(h.Compression) {
		return fmt.Errorf("%w: %s: this bf-load does not read compression %q", ErrVersion, &h.Task, h.Compression)
	}
	switch h.State {
	case StateChunk: // without parts if it is to be aborted
	case StateGone:
		if len(h.Parts) != 0 {
			return fmt.Errorf("%s: %d parts of a chunk that is gone", &h.Task, len(h.Parts))
		}
	default:
		return fmt.Errorf("%w: %s: this bf-load does not read state %q", ErrVersion, &h.Task, h.State)
	}
	for i, p := range h.Parts {
		if p.Relation != Rows && p.Relation != Compressed {
			return fmt.Errorf("%w: %s: part %d: this bf-load does not read relation %q", ErrVersion, &h.Task, i+1,
				p.Relation)
		}
		if p.Format != Binary && p.Format != Text {
			return fmt.Errorf("%w: %s: part %d: this bf-load does not read format %q", ErrVersion, &h.Task,
				i+1, p.Format)
		}
		if len(p.Columns) == 0 {
			return fmt.Errorf("%s: part %d has no columns", &h.Task, i+1)
		}
		for _, c := range p.Columns {
			if c.Name == "" || c.Type == "" {
				return fmt.Errorf("%s: part %d: column without name or type", &h.Task, i+1)
			}
		}
	}
	return nil
}
