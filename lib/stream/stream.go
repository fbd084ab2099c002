// Package stream reads and writes the dump format of bf: what bf-dump prints
// and bf-load reads. It knows nothing of databases.
//
// The exit status of the left side of a pipe is invisible to the right, and
// PostgreSQL accepts a binary COPY that was cut between two rows. So the
// stream proves its own end: a reader knows from the bytes alone that a task
// arrived whole, and that the dump came to its proper end.
//
// # Format
//
// A stream is a sequence of segments, one per task, and an end mark. Streams
// may be concatenated. Integers are big-endian.
//
//	stream  = segment* end
//	segment = magic frame(H) part* ( frame(T) | frame(X) )
//	part    = ( frame(D) | frame(d) )* frame(E)
//	end     = magic frame(Z)
//	magic   = 89 62 66 0d 0a 1a 0a 01            eight bytes; the last is the version, 1
//	frame   = type length payload checksum
//	            type      1 byte, the ASCII letter
//	            length    4 bytes, of the payload
//	            payload   length bytes
//	            checksum  4 bytes
//
// The checksum is the CRC-32C (Castagnoli) of everything from the first magic
// of the stream to the end of this frame's payload, without the checksum
// fields themselves; it starts anew after an end mark. A frame or a segment
// that was dropped, repeated, moved or altered is therefore seen at the first
// checksum that follows, before the payload of that frame is used.
//
// The frames:
//
//	H  header of the segment, JSON: see Header. At most 4 MiB.
//	D  data of the current part, 1 byte to 1 MiB.
//	d  the same, compressed: one independent block of the codec that the
//	   header names, at most 1 MiB also when decompressed. zstd: a zstd frame
//	   (RFC 8878, window at most 1 MiB); s2: a block of S2's block format,
//	   not its stream format. What does not shrink is stored as D.
//	E  end of a part, JSON: {"rows": N, "bytes": N}; the bytes are those of
//	   the part's data, decompressed.
//	T  trailer of the segment, JSON: {"rows": N, "bytes": N}, the sums over
//	   its parts. It is written only after the source's COPY completed:
//	   nothing of a segment may be committed before its trailer was verified.
//	X  abort, JSON: {"message": "...", "sqlstate": "..."}. The source failed
//	   in the middle of this task: what came of the segment is to be rolled
//	   back. The next segment stands on its own. It may come in place of any
//	   frame after H.
//	Z  end of the stream, JSON: {"tasks": N, "aborted": N, "stopped": BOOL}:
//	   how many segments the stream has, how many of them ended in X, and
//	   whether the dump ended before it had done all its tasks.
//
// E, T, X and Z are at most 64 KiB. A segment has as many parts as its header
// lists, in that order; none when its state is "gone". A header of state
// "chunk" without parts belongs to a dump that failed before it knew them: only
// X may follow. The data of a part is
// what PostgreSQL's COPY TO STDOUT sends, in the part's format; frames cut it
// anywhere. JSON fields that a reader does not know are ignored.
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
	frameHeader  = 'H'
	frameData    = 'D'
	framePacked  = 'd'
	framePartEnd = 'E'
	frameTrailer = 'T'
	frameAbort   = 'X'
	frameEnd     = 'Z'
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
			return fmt.Errorf("%w: %s: part %d: this bf-load does not read relation %q", ErrVersion, &h.Task, i+1, p.Relation)
		}
		if p.Format != Binary && p.Format != Text {
			return fmt.Errorf("%w: %s: part %d: this bf-load does not read format %q", ErrVersion, &h.Task, i+1, p.Format)
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
