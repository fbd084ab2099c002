package target

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"bf/lib/task"
)

// obstacle is what keeps the target from a method, and what removes it. The zero
// value is none.
type obstacle struct {
	what, detail, remedy string
	loose                task.Loose // as what it counts where rows are left uncompressed
}

func obstaclef(format string, args ...any) obstacle {
	return obstacle{what: fmt.Sprintf(format, args...)}
}

func (o obstacle) none() bool { return o == obstacle{} }

func (o obstacle) String() string {
	s := o.what
	if o.detail != "" {
		s += ": " + o.detail
	}
	if o.remedy != "" {
		s += "; this helps: " + o.remedy
	}
	return s
}

// reasons are why a method was chosen.
type reasons []string

// because says each obstacle once: the record of a task may bring what is found here
// again, maybe with more detail.
func because(all ...obstacle) (r reasons) {
	for _, o := range all {
		if i := slices.IndexFunc(r, func(s string) bool { return s == o.what || s == o.String() }); i >= 0 {
			r[i] = o.String()
		} else if !o.none() {
			r = append(r, o.String())
		}
	}
	return r
}

func (r reasons) String() string { return strings.Join(r, "; ") }

// method is what comes next for a task.
type method string

// Preparations: a short transaction of its own, after which facts are gathered
// again.
const (
	makeChunks      method = "make the chunks"
	decompressChunk method = "decompress the chunk, which has no batches"
	compressChunk   method = "have the server compress the chunk"
)

// askForRows ends the task's turn: its next dump sends rows.
const askForRows method = "ask for rows"

// Writes: the transaction that completes the task.
const (
	rowsChunk    method = "rows into the chunk"
	rowsRoot     method = "rows through the hypertable"
	rowsTable    method = "rows into a table that became the chunk"
	rowsFresh    method = "rows into a fresh compressed relation"
	rowsExisting method = "rows into the existing compressed relation"
	rowsCompress method = "rows into the chunk, then compressed"
	rawFresh     method = "raw into a fresh compressed relation"
	rawExisting  method = "raw into the existing compressed relation"
)

// facts is all that the choice of a method depends on; see gather.
type facts struct {
	// Of the stream.
	raw        bool     // it brings the compressed relation
	compressed bool     // the chunk is compressed on the source
	frozen     bool     // and frozen
	large      bool     // its rows are worth a table of their own
	partial    bool     // the range covers only a part of the chunk
	whyRows    obstacle // why a compressed chunk comes by its rows

	// Of the hypertable.
	full        bool // the target has the full edition
	compression bool // and the hypertable has compression enabled
	referenced  bool // other tables reference it
	attaches    bool // a table can become its chunk

	// Of the chunk with the task's extent.
	missing        bool     // it is still to be made
	noChunk        obstacle // why there is none
	indirect       obstacle // why rows cannot be written to it directly
	batches        bool     // it is compressed
	empty          bool     // it is compressed and has no batches
	referencedRows bool     // it has rows of the range that other tables may reference

	// Of a compressed relation that is to become the chunk's.
	unfit        obstacle // why it cannot
	insertFirst  obstacle // why its rows have to get into the chunk before they are compressed
	build        obstacle // why the role cannot make it
	existing     obstacle // why the relation that the server makes does not take its batches
	uncompressed bool     // the server has not made that yet
}

// tablePays reports whether a table that becomes the chunk is worth looking into.
func (f *facts) tablePays() bool {
	return f.missing && f.noChunk.none() && f.large && !f.compressed && !f.frozen
}

// endsCompressed reports whether the chunk has to be compressed in the end: what is
// compressed on either side stays so.
func (f *facts) endsCompressed() bool {
	return f.compression && (f.compressed || f.batches) && !f.partial
}

// decision is the method and why it is not the best one.
type decision struct {
	method method
	why    reasons
	leaves obstacle   // to have the rows compressed, where it leaves them uncompressed
	left   task.Loose // as what that counts, where they are compressed on the source
}

// String is the whole of the reasons.
func (d decision) String() string { return append(d.why, because(d.leaves)...).String() }

var (
	chunkCompressed = obstacle{what: "the target's chunk is compressed"}
	rowsReferenced  = obstacle{what: "other tables reference rows of the target's chunk"}
	neverCompressed = obstacle{what: "the server compresses no table that others reference"}
)

// decide is the decision table. How what the target holds is cleared is no part of
// it: that depends on the state that the chunk has once it is locked.
func decide(f facts) decision {
	m, why, leaves := choose(f)
	left := f.left(m)
	if leaves.none() && left != "" {
		leaves = obstacle{what: "left uncompressed"}
	}
	return decision{m, why, leaves, left}
}

// choose also returns what is in the way where it leaves rows uncompressed, unless
// why says that.
func choose(f facts) (m method, why reasons, leaves obstacle) {
	none := obstacle{}
	into := rowsChunk
	if !f.indirect.none() || f.batches {
		into = rowsRoot
	}
	switch {
	case f.raw:
		m, why = chooseRaw(f)
		return m, why, none
	case f.tablePays() && f.attaches:
		return rowsTable, nil, none
	case f.missing:
		return makeChunks, nil, none
	case !f.noChunk.none():
		return rowsRoot, because(f.noChunk), none
	case f.empty:
		return decompressChunk, nil, none
	case f.referencedRows:
		return into, because(rowsReferenced), none
	case f.partial && f.batches:
		return rowsRoot, because(chunkCompressed), none // its other rows stay as they are
	case !f.endsCompressed():
		return into, because(cmp.Or(f.indirect, f.whyRows)), none
	}
	return chooseCompressed(f, into)
}

// chooseRaw is for a stream that brings the compressed relation.
func chooseRaw(f facts) (method, reasons) {
	switch {
	case !f.noChunk.none():
		return askForRows, because(f.noChunk)
	case !f.unfit.none():
		return askForRows, because(f.unfit)
	case !f.build.none() && !f.existing.none():
		return askForRows, because(f.noRelation())
	case !f.build.none() && f.uncompressed:
		return compressChunk, nil
	case !f.build.none():
		return rawExisting, nil
	case f.missing:
		return makeChunks, nil
	}
	return rawFresh, nil // attached last: nobody waits for the COPY
}

// chooseCompressed is for rows that are compressed here; into is the method for
// those that are not.
func chooseCompressed(f facts, into method) (m method, why reasons, leaves obstacle) {
	reason := f.whyRows
	if !f.compressed {
		reason = chunkCompressed
	}
	leaves = cmp.Or(f.unfit, f.noRelation())
	switch existing := f.unfit.none() && f.insertFirst.none() && f.existing.none(); {
	case f.referenced:
		if f.indirect.none() {
			into = rowsChunk // which is emptied first
		}
		return into, because(reason, neverCompressed), obstacle{}
	case leaves.none() && f.insertFirst.none():
		return rowsFresh, because(reason), obstacle{}
	case leaves.none():
		return rowsCompress, because(reason, f.insertFirst), obstacle{}
	case existing && f.uncompressed:
		return compressChunk, nil, obstacle{}
	case existing:
		return rowsExisting, because(reason), obstacle{}
	}
	// The target's policy compresses them, later.
	why = because(reason)
	if slices.Contains(why, leaves.String()) {
		return into, why, obstacle{what: "left uncompressed"}
	}
	return into, why, obstacle{what: "left uncompressed", detail: leaves.String()}
}

// noRelation is why no compressed relation takes the batches.
func (f *facts) noRelation() obstacle {
	o := f.build
	if !o.none() && !f.existing.none() {
		o.what += ", and " + f.existing.what
	}
	return o
}

// left is why rows that are compressed on the source are not so after that method.
func (f *facts) left(m method) task.Loose {
	if !f.compressed || m != rowsChunk && m != rowsRoot {
		return ""
	}
	all := task.Obstacles{
		task.LooseApache: !f.full, task.LooseDisabled: !f.compression, task.LooseRange: f.partial,
		task.LooseReferenced: f.referenced || f.referencedRows,
	}
	for _, o := range []obstacle{f.noChunk, f.unfit, f.build} {
		all[o.loose] = true
	}
	return all.First()
}
