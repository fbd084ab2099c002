package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// picture returns the lines that a page of section 1 shows below a subsection.
func picture(t *testing.T, tool, title string) []string {
	t.Helper()
	for _, p := range pages(t) {
		if p.name == tool && p.section == "1" {
			_, after, _ := strings.Cut(p.part("Ss", title), ".Bd -literal\n")
			if shown, _, found := strings.Cut(after, "\n.Ed"); found {
				return lines(shown)
			}
		}
	}
	t.Fatalf("%s(1) shows nothing below %q", tool, title)
	return nil
}

var lookAlikes = []struct{ re, with string }{
	{`^(bf-)?backfill:`, "backfill:"}, {`public\.\w+`, "T"}, {`_hyper_\d+_\d+_chunk`, "C"}, {`\[#*\.*\]`, "BAR"},
	{`#+`, "#"},
	{`\d+(\.\d+)?`, "0"}, {`\b(0[dhms])+\b`, "0s"}, {`0 [kMGT]?B`, "0 B"}, {`0( B)?/0 B`, "0/0 B"},
	{`~0( [kM])?\b`, "~0"}, {`^ *how: .*`, "how: "}, {`  +`, "  "},
}

// shape is a line without its numbers, names and lengths.
func shape(line string) string {
	for _, s := range lookAlikes {
		line = regexp.MustCompile(s.re).ReplaceAllString(line, s.with)
	}
	return strings.TrimSpace(line)
}

// pictured checks that what the manual shows is what was printed, but for numbers and
// names.
func pictured(t *testing.T, tool, title, printed string) {
	t.Helper()
	shown(t, picture(t, tool, title), printed)
}

// shown checks that all lines of a picture are among those that were printed.
func shown(t *testing.T, picture []string, printed string) {
	t.Helper()
	var there []string
	for _, l := range lines(printed) {
		there = append(there, shape(l))
	}
	for _, l := range picture {
		if !slices.Contains(there, shape(l)) {
			t.Errorf("the manual shows\n%s\nwhich is not what is printed:\n%s", l, printed)
		}
	}
}
