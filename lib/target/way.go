package target

import (
	"cmp"
	"slices"
	"strings"

	"bf/lib/task"
)

// way is how the data of a task is written.
type way string

const (
	rowsChunk    way = "rows into the chunk"
	rowsRoot     way = "rows through the hypertable"
	rowsTable    way = "rows into a table that became the chunk" // see becomesChunk
	rowsFresh    way = "rows into a fresh compressed relation"   // see copyApart
	rowsExisting way = "rows into the existing compressed relation"
	rowsCompress way = "rows into the chunk, then compressed" // see recompress
	rawFresh     way = "raw into a fresh compressed relation"
	rawExisting  way = "raw into the existing compressed relation"
	refuse       way = "" // the stream brings what the target cannot take
)

// situation is all that the choice of a way depends on.
type situation struct {
	// Of the stream.
	raw        bool // it brings the compressed relation
	compressed bool // the chunk is compressed on the source
	partial    bool // the range covers only a part of the chunk
	whyRows    string

	// Of the target.
	chunk       bool       // it has a chunk of that extent
	whyRoot     string     // why rows are not written to it directly
	noChunk     task.Loose // what is in the way of one
	squeezed    bool       // that chunk is compressed
	referenced  []string   // the key by which other tables reference the hypertable; nil if none does
	held        bool       // and that chunk has rows of the range
	compression bool       // the hypertable has compression enabled
	whyInto     string     // why rows have to get into the chunk before they are compressed apart from it
	whyLoose    string     // why they cannot be compressed at all without keeping the application out
	lossy       bool       // because they would lose NULLs
	unfit       string     // why the compressed relation does not fit; "" if it does
	mayBuild    bool       // the role may create the relation
	whyNot      string     // why not
	same        bool       // the chunk's own relation has the same columns and settings
}

// choose is the decision table. Clearing what the target holds is no part of
// it: that depends on the state the chunk is in once it is locked.
func choose(s situation) (w way, why string) {
	switch {
	// The stream brings the compressed relation.
	case s.raw && s.unfit != "":
		return refuse, s.unfit
	case s.raw && s.mayBuild:
		return rawFresh, "" // attached last: nobody waits for the COPY
	case s.raw && s.same:
		return rawExisting, ""
	case s.raw:
		return refuse, s.whyNot

	// It brings rows.
	case !s.chunk:
		return rowsRoot, s.whyRoot
	case s.held && (s.squeezed || s.whyRoot != ""):
		return rowsRoot, whyMerged
	case s.held:
		return rowsChunk, whyMerged
	case s.partial && s.squeezed:
		return rowsRoot, whySqueezed // and its other rows stay as they are
	case s.partial, !s.compression, !s.compressed && !s.squeezed:
		if s.whyRoot != "" {
			return rowsRoot, s.whyRoot
		}
		return rowsChunk, s.whyRows
	}
	// What is compressed on either side is so in the end.
	if why = s.whyRows; !s.compressed {
		why = whySqueezed
	}
	switch {
	case s.referenced != nil && s.whyRoot != "":
		return rowsRoot, why + whyReferenced
	case s.referenced != nil:
		return rowsChunk, why + whyReferenced
	case s.whyLoose == "" && s.mayBuild && s.whyInto == "":
		return rowsFresh, why
	case s.whyLoose == "" && s.mayBuild:
		if strings.HasPrefix(s.whyInto, why) {
			return rowsCompress, s.whyInto
		}
		return rowsCompress, why + "; " + s.whyInto
	case s.whyLoose == "" && s.same:
		return rowsExisting, why
	}
	// The target's policy compresses it, later.
	loose := cmp.Or(s.whyLoose, s.whyNot)
	if why += "; " + leftUncompressed; !strings.HasPrefix(why, loose) {
		why += ": " + loose
	}
	if s.squeezed || s.whyRoot != "" {
		return rowsRoot, why
	}
	return rowsChunk, why
}

// loose is why what is compressed on the source is not so after that way; the
// obstacles are those that choose meets.
func (s *situation) loose(w way, full bool) task.Loose {
	if !s.compressed || !slices.Contains([]way{rowsChunk, rowsRoot}, w) {
		return ""
	}
	o := task.Obstacles{task.LooseApache: !full, task.LooseDisabled: !s.compression, task.LooseRange: s.partial,
		task.LooseReferenced: s.held || s.referenced != nil, task.LooseDefault: s.lossy, task.LooseRefused: s.whyLoose != "" && !s.lossy, task.LoosePrivilege: !s.mayBuild}
	if !s.chunk {
		o[s.noChunk] = true
	}
	return o.First()
}

const whyReferenced = "; the server compresses no table that others reference"

// leftUncompressed says to people that a result has a reason for that.
const leftUncompressed = "left uncompressed"

// whySqueezed says why rows do not go into the target's chunk.
const whySqueezed = "the target's chunk is compressed"
