package target

import (
	"reflect"
	"testing"

	"bf/lib/task"
)

// Obstacles, for the facts of these tests.
var (
	unfit     = obstacle{what: "does not fit", loose: task.LooseRefused}
	root      = obstacle{what: "cut differently", loose: task.LooseExtents}
	grant     = obstacle{what: "no right", remedy: "grant it", loose: task.LoosePrivilege}
	triggers  = obstacle{what: "triggers"}
	refused   = obstacle{what: "refused", loose: task.LooseRefused}
	other     = obstacle{what: "another one"}
	unordered = obstacle{what: "unordered"}
	numbers   = obstacle{what: "other numbers"}
	fires     = obstacle{what: "triggers", detail: "seen"}
)

const left = "; left uncompressed: "

// decided is what is decided upon facts.
type decided struct {
	name   string
	f      facts
	method method
	why    string
}

func decides(t *testing.T, cases []decided) {
	t.Helper()
	for _, c := range cases {
		if d := decide(c.f); d.method != c.method || d.String() != c.why {
			t.Errorf("%s: %q because %q; want %q because %q", c.name, d.method, d, c.method, c.why)
		}
	}
}

// TestDecideBatches: the stream has batches.
func TestDecideBatches(t *testing.T) {
	decides(t, []decided{
		{"raw", facts{raw: true, compressed: true, compression: true}, rawFresh, ""},
		{"raw, no chunk yet", facts{raw: true, compressed: true, compression: true, missing: true}, makeChunks, ""},
		{"raw, no such chunk", facts{raw: true, compressed: true, noChunk: root}, askForRows, root.what},
		{"raw, unfit", facts{raw: true, compressed: true, compression: true, unfit: unfit}, askForRows, unfit.what},
		{"raw, no right to build, server makes the same", facts{raw: true, compressed: true, build: grant},
			rawExisting, ""},
		{"raw, no right to build, server has to make it",
			facts{raw: true, compressed: true, build: grant, uncompressed: true}, compressChunk, ""},
		{"raw, no right to build, server has to make it and the chunk",
			facts{raw: true, compressed: true, build: grant, uncompressed: true, missing: true}, compressChunk, ""},
		{"raw, no right to build, server makes another",
			facts{raw: true, compressed: true, build: grant, existing: other}, askForRows,
			"no right, and another one; this helps: grant it"},
	})
}

// TestDecideUncompressed: the chunk is not compressed on the source.
func TestDecideUncompressed(t *testing.T) {
	decides(t, []decided{
		{"uncompressed", facts{}, rowsChunk, ""},
		{"uncompressed, no chunk yet", facts{missing: true}, makeChunks, ""},
		{"uncompressed, no chunk yet, large", facts{missing: true, large: true, attaches: true}, rowsTable, ""},
		{"uncompressed, no chunk yet, large, table refused", facts{missing: true, large: true}, makeChunks, ""},
		{"uncompressed, unaligned, no chunks yet, large",
			facts{missing: true, large: true, attaches: true, noChunk: root}, makeChunks, ""},
		{"uncompressed, no such chunk", facts{noChunk: root}, rowsRoot, root.what},
		{"frozen, no chunk yet, large", facts{missing: true, large: true, attaches: true, frozen: true},
			makeChunks, ""},
		{"uncompressed, chunk compressed", facts{batches: true, compression: true}, rowsFresh, chunkCompressed.what},
		{"uncompressed, chunk compressed without batches", facts{batches: true, empty: true, compression: true},
			decompressChunk, ""},
		{"uncompressed, chunk compressed, into it", facts{batches: true, compression: true, insertFirst: triggers},
			rowsCompress, chunkCompressed.what + "; triggers"},
		{"uncompressed, chunk compressed, into it, no right to build",
			facts{batches: true, compression: true, build: grant, insertFirst: triggers}, rowsRoot,
			chunkCompressed.what + left + grant.String()},
		{"uncompressed, chunk compressed, not to be compressed",
			facts{batches: true, compression: true, unfit: refused}, rowsRoot, chunkCompressed.what + left + "refused"},
	})
}

// TestDecideCompressed: the chunk is compressed on the source, and comes as rows.
func TestDecideCompressed(t *testing.T) {
	decides(t, []decided{
		{"compressed by rows", facts{compressed: true, compression: true, whyRows: unordered}, rowsFresh, "unordered"},
		{"compressed by rows, large, no chunk yet",
			facts{compressed: true, compression: true, whyRows: unordered, large: true, missing: true, attaches: true},
			makeChunks, ""},
		{"compressed by rows, no right to build, server makes the same",
			facts{compressed: true, compression: true, whyRows: unordered, build: grant}, rowsExisting, "unordered"},
		{"compressed by rows, no right to build, server has to make it",
			facts{compressed: true, compression: true, whyRows: unordered, build: grant, uncompressed: true},
			compressChunk, ""},
		{"compressed by rows, no right to build, server makes another",
			facts{compressed: true, compression: true, whyRows: unordered, build: grant, existing: other}, rowsChunk,
			"unordered" + left + "no right, and another one; this helps: grant it"},
		{"compressed by rows for want of the right",
			facts{compressed: true, compression: true, whyRows: obstacle{what: grant.String()}, build: grant,
				insertFirst: triggers}, rowsChunk, grant.String() + "; left uncompressed"},
		{"compressed by rows, not to be compressed",
			facts{compressed: true, compression: true, whyRows: unordered, unfit: refused}, rowsChunk,
			"unordered" + left + "refused"},
		{"compressed by rows, into the chunk",
			facts{compressed: true, compression: true, whyRows: unordered, insertFirst: triggers}, rowsCompress,
			"unordered; triggers"},
		{"compressed by rows, into the chunk for the same reason",
			facts{compressed: true, compression: true, whyRows: triggers, insertFirst: triggers}, rowsCompress,
			"triggers"},
		{"compressed by rows, into the chunk and not to be compressed",
			facts{compressed: true, compression: true, whyRows: triggers, insertFirst: triggers, unfit: refused},
			rowsChunk, "triggers" + left + "refused"},
		{"compressed by rows, chunk compressed",
			facts{compressed: true, batches: true, compression: true, whyRows: unordered}, rowsFresh, "unordered"},
		{"compressed by rows, compression not enabled", facts{compressed: true, whyRows: unordered}, rowsChunk,
			"unordered; left uncompressed"},
		{"compressed by rows, no such chunk",
			facts{compressed: true, noChunk: root, compression: true, whyRows: unordered}, rowsRoot,
			root.what + "; left uncompressed"},
	})
}

// TestDecideReferenced: other tables reference its rows or the hypertable.
func TestDecideReferenced(t *testing.T) {
	decides(t, []decided{
		{"uncompressed, rows referenced", facts{referenced: true, referencedRows: true}, rowsChunk,
			rowsReferenced.what},
		{"uncompressed, chunk compressed, rows referenced",
			facts{batches: true, compression: true, referenced: true, referencedRows: true}, rowsRoot,
			rowsReferenced.what},
		{"compressed by rows, rows referenced",
			facts{compressed: true, compression: true, referenced: true, referencedRows: true, whyRows: unordered},
			rowsChunk, rowsReferenced.what + "; left uncompressed"},
		{"compressed by rows, chunk compressed, rows referenced",
			facts{compressed: true, batches: true, compression: true, referenced: true, referencedRows: true,
				whyRows: unordered}, rowsRoot, rowsReferenced.what + "; left uncompressed"},
		{"a part, chunk compressed, rows referenced",
			facts{partial: true, batches: true, compression: true, referenced: true, referencedRows: true}, rowsRoot,
			rowsReferenced.what},
		{"compressed by rows, hypertable referenced",
			facts{compressed: true, compression: true, referenced: true, whyRows: unordered}, rowsChunk,
			"unordered; " + neverCompressed.what + "; left uncompressed"},
	})
}

// TestDecideNumbers: the columns have other numbers in the chunk than in the hypertable.
func TestDecideNumbers(t *testing.T) {
	decides(t, []decided{
		{"raw, columns with other numbers", facts{raw: true, compressed: true, compression: true, indirect: numbers},
			rawFresh, ""},
		{"uncompressed, columns with other numbers", facts{indirect: numbers}, rowsRoot, "other numbers"},
		{"uncompressed, columns with other numbers, rows referenced",
			facts{indirect: numbers, referenced: true, referencedRows: true}, rowsRoot, rowsReferenced.what},
		{"compressed by rows, columns with other numbers",
			facts{compressed: true, compression: true, whyRows: unordered, indirect: numbers}, rowsFresh, "unordered"},
		{"compressed by rows, columns with other numbers, not to be compressed",
			facts{compressed: true, compression: true, whyRows: unordered, indirect: numbers, unfit: refused}, rowsRoot,
			"unordered" + left + "refused"},
		{"compressed by rows, into the chunk for the same reason in detail",
			facts{compressed: true, compression: true, whyRows: triggers, insertFirst: fires}, rowsCompress,
			"triggers: seen"},
	})
}

// TestDecideParts: the task is a part of its chunk.
func TestDecideParts(t *testing.T) {
	decides(t, []decided{
		{"a part", facts{partial: true}, rowsChunk, ""},
		{"a part of a compressed chunk", facts{partial: true, compressed: true, compression: true, whyRows: unordered},
			rowsChunk, "unordered; left uncompressed"},
		{"a part, chunk compressed", facts{partial: true, batches: true, compression: true}, rowsRoot,
			chunkCompressed.what},
		{"a part of a compressed chunk, chunk compressed",
			facts{partial: true, compressed: true, batches: true, compression: true, whyRows: unordered}, rowsRoot,
			chunkCompressed.what + "; left uncompressed"},
		{"a part, no such chunk", facts{partial: true, noChunk: root}, rowsRoot, root.what},
	})
}

// TestDecideAll looks at every combination of facts for decisions that would do
// harm or lead nowhere.
func TestDecideAll(t *testing.T) {
	fields := reflect.TypeFor[facts]().NumField()
	for bits := range 1 << fields {
		var f facts
		v := reflect.NewAt(reflect.TypeFor[facts](), reflect.ValueOf(&f).UnsafePointer()).Elem()
		for i := range fields {
			if bits>>i&1 == 0 {
				continue
			}
			field := reflect.NewAt(v.Field(i).Type(), v.Field(i).Addr().UnsafePointer()).Elem()
			if field.Kind() == reflect.Bool {
				field.SetBool(true)
			} else {
				field.Set(reflect.ValueOf(obstacle{what: "obstacle", loose: task.LooseRefused}))
			}
		}
		d := decide(f)
		raw := d.method == rawFresh || d.method == rawExisting
		builds := d.method == rawFresh || d.method == rowsFresh || d.method == rowsCompress
		existing := d.method == rawExisting || d.method == rowsExisting
		compresses := builds || existing
		plain := d.method == rowsChunk || d.method == rowsRoot
		writes := compresses || plain || d.method == rowsTable
		what := ""
		switch {
		case d.method == "":
			what = "no method"
		case writes && raw != f.raw:
			what = "raw data by rows, or rows as raw data"
		case d.method == askForRows && (!f.raw || len(d.why) == 0):
			what = "rows refused, or raw data without a reason"
		case writes && d.method != rowsTable && f.missing && !existing:
			what = "written while a chunk is still to be made"
		case writes && d.method != rowsTable && d.method != rowsRoot && !f.noChunk.none():
			what = "into a chunk that is not there"
		case d.method == rowsChunk && !f.indirect.none():
			what = "straight into a chunk that does not take rows"
		case d.method == makeChunks && !f.missing, d.method == decompressChunk && !f.empty, d.method == compressChunk &&
			!f.uncompressed:
			what = "a preparation that changes nothing"
		case compresses && !f.unfit.none():
			what = "compressed though it does not fit"
		case builds && !f.build.none():
			what = "built without the right"
		case (existing || d.method == compressChunk) && (f.build.none() || !f.existing.none()):
			what = "the server's relation without need, or of another kind"
		case (d.method == rowsFresh || d.method == rowsExisting) && !f.insertFirst.none():
			what = "compressed before triggers could fire"
		case f.referencedRows && compresses && !raw:
			what = "referenced rows deleted"
		case f.partial && compresses && !raw:
			what = "a part replaces the whole"
		case d.method == rowsTable && (!f.attaches || f.compressed || f.frozen || !f.noChunk.none()):
			what = "a table that lacks something"
		case d.method == rowsChunk && f.batches && (f.partial || f.referencedRows):
			what = "rows into a chunk that is not emptied"
		case (d.left != "") && (!f.compressed || !plain):
			what = "left uncompressed, and it is not"
		case d.left != "" && d.leaves.none():
			what = "left uncompressed without a word"
		}
		if what != "" {
			t.Fatalf("%s: %q because %q, of %+v", what, d.method, d.why, f)
		}
	}
}
