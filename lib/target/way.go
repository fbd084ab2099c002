package target

import "cmp"

// way is how the data of a task is written.
type way string

const (
	rowsChunk    way = "rows into the chunk"
	rowsRoot     way = "rows through the hypertable"
	rowsTable    way = "rows into a table that became the chunk" // see becomesChunk
	rowsFresh    way = "rows into a fresh compressed relation"   // see copyApart
	rowsExisting way = "rows into the existing compressed relation"
	rowsCompress way = "rows into the chunk, then compressed"
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
	chunk       bool     // it has a chunk of that extent
	whyRoot     string   // why not
	squeezed    bool     // that chunk is compressed
	referenced  []string // the key by which other tables reference the hypertable; nil if none does
	held        bool     // and that chunk has rows of the range
	compression bool     // the hypertable has compression enabled
	whyLocked   string   // why rows cannot be compressed apart from the chunk; "" if they can
	unfit       string   // why the compressed relation does not fit; "" if it does
	mayBuild    bool     // the role may create the relation
	whyNot      string   // why not
	same        bool     // the chunk's own relation has the same columns and settings
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
	case s.held && s.squeezed:
		return rowsRoot, whyMerged
	case s.held:
		return rowsChunk, whyMerged
	case s.partial && s.squeezed:
		return rowsRoot, whySqueezed // and its other rows stay as they are
	case s.partial:
		return rowsChunk, s.whyRows
	case !s.compression || !s.compressed && !s.squeezed:
		return rowsChunk, s.whyRows
	}
	// What is compressed on either side is so in the end.
	if why = s.whyRows; !s.compressed {
		why = whySqueezed
	}
	switch {
	case s.referenced != nil:
		return rowsChunk, why + "; the server compresses no table that others reference"
	case s.whyLocked == "" && s.mayBuild:
		return rowsFresh, why
	case s.whyLocked == "" && s.same:
		return rowsExisting, why
	}
	if locked := cmp.Or(s.whyLocked, s.whyNot); locked != why {
		why += "; the chunk was locked while the server compressed it: " + locked
	}
	return rowsCompress, why
}

// whySqueezed says why rows do not go into the target's chunk.
const whySqueezed = "the target's chunk is compressed"
