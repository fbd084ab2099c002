package target

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestChoose(t *testing.T) {
	const unfit, root, grant, loose = "does not fit", "cut differently", "grant", "; left uncompressed: "
	for _, c := range []struct {
		name string
		s    situation
		way  way
		why  string
	}{
		{"raw, chunk absent or uncompressed", situation{raw: true, compressed: true, chunk: true, compression: true, mayBuild: true}, rawFresh, ""},
		{"raw, chunk compressed alike", situation{raw: true, compressed: true, chunk: true, squeezed: true, compression: true, mayBuild: true, same: true}, rawFresh, ""},
		{"raw, no right to build, server makes the same", situation{raw: true, compressed: true, chunk: true, compression: true, same: true, whyNot: grant}, rawExisting, ""},
		{"raw, no right to build, server makes another", situation{raw: true, compressed: true, chunk: true, compression: true, whyNot: grant}, refuse, grant},
		{"raw, unfit", situation{raw: true, compressed: true, chunk: true, compression: true, mayBuild: true, unfit: unfit}, refuse, unfit},
		{"raw, unfit before the chunk was looked for", situation{raw: true, compressed: true, unfit: unfit}, refuse, unfit},

		{"uncompressed, chunk uncompressed", situation{chunk: true}, rowsChunk, ""},
		{"uncompressed, chunk compressed", situation{chunk: true, squeezed: true, compression: true, mayBuild: true}, rowsFresh, whySqueezed},
		{"uncompressed, chunk compressed, into it", situation{chunk: true, squeezed: true, compression: true, mayBuild: true, whyInto: "triggers"}, rowsCompress, whySqueezed + "; triggers"},
		{"uncompressed, chunk compressed, into it, no right to build", situation{chunk: true, squeezed: true, compression: true, whyNot: grant, whyInto: "triggers"}, rowsRoot, whySqueezed + loose + grant},
		{"uncompressed, chunk compressed, not apart", situation{chunk: true, squeezed: true, compression: true, mayBuild: true, whyLoose: "refused"}, rowsRoot, whySqueezed + loose + "refused"},
		{"uncompressed, no such chunk", situation{whyRoot: root}, rowsRoot, root},
		{"compressed by rows", situation{compressed: true, chunk: true, compression: true, whyRows: "unordered", mayBuild: true}, rowsFresh, "unordered"},
		{"compressed by rows, no right to build, server makes the same", situation{compressed: true, chunk: true, compression: true, whyRows: "unordered", whyNot: grant, same: true}, rowsExisting, "unordered"},
		{"compressed by rows, no right to build, server makes another", situation{compressed: true, chunk: true, compression: true, whyRows: "unordered", whyNot: grant}, rowsChunk, "unordered" + loose + grant},
		{"compressed by rows, not apart", situation{compressed: true, chunk: true, compression: true, whyRows: "unordered", whyLoose: "refused", mayBuild: true}, rowsChunk, "unordered" + loose + "refused"},
		{"compressed by rows, into the chunk", situation{compressed: true, chunk: true, compression: true, whyRows: "unordered", whyInto: "triggers", mayBuild: true}, rowsCompress, "unordered; triggers"},
		{"compressed by rows, into the chunk for the same reason", situation{compressed: true, chunk: true, compression: true, whyRows: "triggers", whyInto: "triggers", mayBuild: true}, rowsCompress, "triggers"},
		{"compressed by rows, into the chunk and not apart", situation{compressed: true, chunk: true, compression: true, whyRows: "triggers", whyInto: "triggers", whyLoose: "refused", mayBuild: true}, rowsChunk, "triggers" + loose + "refused"},
		{"compressed by rows, chunk compressed", situation{compressed: true, chunk: true, squeezed: true, compression: true, whyRows: "unordered", mayBuild: true}, rowsFresh, "unordered"},
		{"compressed by rows, compression not enabled", situation{compressed: true, chunk: true, whyRows: "not enabled"}, rowsChunk, "not enabled"},
		{"compressed by rows, no such chunk", situation{compressed: true, whyRoot: root, compression: true, whyRows: "unordered"}, rowsRoot, root},

		{"uncompressed, chunk referenced", situation{chunk: true, held: true}, rowsChunk, whyMerged},
		{"uncompressed, chunk compressed and referenced", situation{chunk: true, squeezed: true, compression: true, held: true}, rowsRoot, whyMerged},
		{"compressed by rows, chunk referenced", situation{compressed: true, chunk: true, compression: true, held: true, whyRows: "unordered"}, rowsChunk, whyMerged},
		{"compressed by rows, chunk compressed and referenced", situation{compressed: true, chunk: true, squeezed: true, compression: true, held: true, whyRows: "unordered"}, rowsRoot, whyMerged},
		{"a part, chunk compressed and referenced", situation{partial: true, chunk: true, squeezed: true, compression: true, held: true}, rowsRoot, whyMerged},

		{"compressed by rows, hypertable referenced", situation{compressed: true, chunk: true, compression: true, referenced: []string{"id"}, whyRows: "unordered"}, rowsChunk, "unordered; the server compresses no table that others reference"},

		{"a part, chunk uncompressed", situation{partial: true, chunk: true}, rowsChunk, ""},
		{"a part of a compressed chunk, chunk uncompressed", situation{partial: true, compressed: true, chunk: true, compression: true, whyRows: "a part"}, rowsChunk, "a part"},
		{"a part, chunk compressed", situation{partial: true, chunk: true, squeezed: true, compression: true}, rowsRoot, "the target's chunk is compressed"},
		{"a part of a compressed chunk, chunk compressed", situation{partial: true, compressed: true, chunk: true, squeezed: true, compression: true, whyRows: "a part"}, rowsRoot, "the target's chunk is compressed"},
		{"a part, no such chunk", situation{partial: true, whyRoot: root}, rowsRoot, root},
	} {
		if w, why := choose(c.s); w != c.way || why != c.why {
			t.Errorf("%s: %q because %q; want %q because %q", c.name, w, why, c.way, c.why)
		}
	}
}

func TestFieldFilter(t *testing.T) {
	for _, c := range []struct {
		drop     string // x for a field to drop
		in, want string
	}{
		{"-", "a\nb\n", "a\nb\n"},
		{"-x-", "a\tb\tc\n\t\t\n\\N\t\\N\t\\N\n", "a\tc\n\t\n\\N\t\\N\n"},
		{"x--", "a\tb\tc\n1\t2\t3\n", "b\tc\n2\t3\n"},
		{"--x", "a\tb\tc\n1\t2\t3\n", "a\tb\n1\t2\n"},
		{"x-x", "a\tb\\tb\tc\n1\t\t3\n", "b\\tb\n\n"},
		{"-xx-", "a\tb\tc\td\n", "a\td\n"},
		{"xx-", "", ""},
	} {
		var drop []bool
		for _, d := range c.drop {
			drop = append(drop, d == 'x')
		}
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
			got, err := io.ReadAll(&fieldFilter{r: bufio.NewReaderSize(wrap(strings.NewReader(c.in)), 16), drop: drop})
			if err != nil || string(got) != c.want {
				t.Errorf("%s of %q: %q, %v; want %q", c.drop, c.in, got, err, c.want)
			}
		}
	}
}
