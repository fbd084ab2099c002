package pg

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

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
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader {
			return r
		}, iotest.OneByteReader, iotest.DataErrReader} {
			got, err := io.ReadAll(&fieldFilter{r: bufio.NewReaderSize(wrap(strings.NewReader(c.in)), 16), drop: drop})
			if err != nil || string(got) != c.want {
				t.Errorf("%s of %q: %q, %v; want %q", c.drop, c.in, got, err, c.want)
			}
		}
	}
}
