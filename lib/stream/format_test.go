package stream

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSpecification compares bf-stream.5 with the constants: magic, types of
// frames, their largest payloads, and the values of the header's fields.
func TestSpecification(t *testing.T) {
	b, err := os.ReadFile("bf-stream.5")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	if want := fmt.Sprintf("magic   = % x\n", magic); !strings.Contains(page, want) {
		t.Errorf("it lacks %q", want)
	}
	said := map[byte]int{}
	unit := map[string]int{"KiB": 1 << 10, "MiB": 1 << 20}
	for _, m := range regexp.MustCompile(`(?m)^\.It Sy (\w) Li (\d+) (\w+)$`).FindAllStringSubmatch(page, -1) {
		n, _ := strconv.Atoi(m[2])
		said[m[1][0]] = n * unit[m[3]]
	}
	for c := range 256 {
		if got, want := said[byte(c)], limit(byte(c)); got != want {
			t.Errorf("frame %q: it says at most %d bytes, the reader takes %d", c, got, want)
		}
	}
	for _, word := range []string{StateChunk, StateGone, codecNone, codecZstd, codecS2, Rows, Compressed,
		Binary, Text} {
		if !regexp.MustCompile(`(?m)^\.Li ` + word + `( [,.])?$`).MatchString(page) {
			t.Errorf("it lacks %q", word)
		}
	}
}
