package e2e

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/schema"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
	"bf/lib/verify"
)

// TestManualRecords compares the fields that the pages of section 5 describe
// with those of the types that are written and read.
func TestManualRecords(t *testing.T) {
	var formats = map[string]page{}
	for _, p := range pages(t) {
		formats[p.name] = p
	}
	records, streams := formats["bf-records"], formats["bf-stream"]
	var values []string // of a field, listed like fields
	for _, s := range []task.Status{task.Loaded, task.Skipped, task.Gone, task.Failed, task.Verified, task.Differs} {
		values = append(values, string(s))
	}
	for _, c := range []struct {
		page  page
		macro string
		title string
		types []any
	}{
		{records, "Ss", "Task", []any{task.Task{}, task.Slice{}, task.Range{}, task.Scan{}, task.Leaf{}}},
		{records, "Ss", "Result", []any{task.Result{}, task.Difference{}}},
		{records, "Ss", "Progress", []any{queue.Progress{}}},
		{records, "Ss", "Report", []any{queue.Report{}, queue.Reported{}, queue.Rate{}, queue.Failure{}}},
		{records, "Ss", "Difference", []any{schema.Difference{}}},
		{records, "Ss", "Summary", []any{verify.Summary{}, verify.Column{}, verify.Values{}, verify.End{}}},
		{streams, "Ss", "Frames", []any{stream.End{}, stream.AbortError{}}},
		{streams, "Ss", "Header", []any{stream.Header{}, stream.Source{}, stream.Part{}, stream.Column{}}},
		{streams, "Ss", "Compressed chunks", []any{tsdb.Image{}, tsdb.Relation{}, tsdb.RelationColumn{}, pg.Order{},
			tsdb.SparseIndex{}, tsdb.IndexColumn{}, tsdb.Settings{}}},
	} {
		part := c.page.part(c.macro, c.title)
		if part == "" {
			t.Errorf("%s: no part %q", c.page.path, c.title)
		}
		literal := strings.Join(regexp.MustCompile(`(?m)^\.(?:It Li|Li|Pq Li|Ql) .*$`).FindAllString(part, -1), "\n")
		fields := map[string]bool{}
		for _, v := range c.types {
			for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
				if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
					fields[name] = true
				}
			}
		}
		for name := range fields {
			if name != "v" && name != "kind" && !regexp.MustCompile(`\b`+name+`\b`).MatchString(literal) {
				t.Errorf("%s, %s: lacks field %s", c.page.path, c.title, name)
			}
		}
		for _, head := range regexp.MustCompile(`(?m)^\.It Li (.*)$`).FindAllStringSubmatch(part, -1) {
			for _, f := range strings.Split(head[1], " , ") {
				if !fields[f] && !slices.Contains(values, f) {
					t.Errorf("%s, %s: there is no field %s", c.page.path, c.title, f)
				}
			}
		}
		for _, m := range regexp.MustCompile(`"(\w+)" ?:`).FindAllStringSubmatch(part, -1) {
			// Within an example other records are shown as well.
			if f := m[1]; !fields[f] && f != "schema" && f != "name" && f != "task" && f != "rows" && f != "bytes" {
				t.Errorf("%s, %s: there is no field %s", c.page.path, c.title, f)
			}
		}
	}
	tables(t, records.part("Ss", "Tables on the target"))
}

// tables compares what is said of schema __backfill with its definition.
func tables(t *testing.T, part string) {
	t.Helper()
	paths, _ := filepath.Glob("../*/schema.sql")
	if len(paths) != 1 {
		t.Fatalf("schema.sql: %q", paths)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(regexp.MustCompile(`(?m)^\.(?:It )?Li .*$`).FindAllString(part, -1), "\n") + " "
	tables := regexp.MustCompile(`(?s)create table __backfill\.(\w+) \((.*?)\);\n`).FindAllStringSubmatch(string(b), -1)
	for _, m := range tables {
		if !strings.Contains(said, "__backfill."+m[1]+"\n") {
			t.Errorf("bf-records.5: nothing is said of table %s", m[1])
		}
		if m[1] != "task" {
			continue
		}
		for _, c := range regexp.MustCompile(`(?m)^    (\w+) +\w+`).FindAllStringSubmatch(m[2], -1) {
			if c[1] != "unique" && !regexp.MustCompile(`\b`+c[1]+`\b`).MatchString(said) {
				t.Errorf("bf-records.5: nothing is said of column %s of table task", c[1])
			}
		}
	}
	if len(tables) < 4 {
		t.Errorf("%d tables in schema.sql: an expression is out of date", len(tables))
	}
}

// TestManualWays compares the ways to write a chunk, and the reasons why one is left
// uncompressed, with those in the code.
func TestManualWays(t *testing.T) {
	for _, c := range []struct{ section, files, constant string }{
		{"How a chunk is written", "../target/*.go", `= "((?:raw|rows) (?:into|through) .*?)"`},
		{"Left uncompressed", "../task/loose.go", `Loose = "(.*?)"`},
	} {
		var said, done []string
		for _, p := range pages(t) {
			if p.name != "bf-compression" {
				continue
			}
			_, part, _ := strings.Cut(p.source, ".Ss "+c.section+"\n")
			part, _, _ = strings.Cut(part, "\n.Ss ")
			for _, m := range regexp.MustCompile(`(?m)^\.It Li (.*)$`).FindAllStringSubmatch(part, -1) {
				said = append(said, m[1])
			}
		}
		paths, _ := filepath.Glob(c.files)
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(path, "_test.go") {
				for _, m := range regexp.MustCompile(c.constant).FindAllStringSubmatch(string(b), -1) {
					done = append(done, m[1])
				}
			}
		}
		if len(said) == 0 || !slices.Equal(sortedStrings(said), sortedStrings(done)) {
			t.Errorf("bf-compression.7 lists\n%q, %s\n%q", said, c.files, done)
		}
	}
}
