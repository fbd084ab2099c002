package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Beside the source's tables there is a CSV file in the world, from which the target's
// "listed" is filled: by the same pipelines, of its tasks alone, whose --source is its
// directory. The source keeps its rows, under another name, to compare with.

// feed is where a pipeline takes its rows from.
type feed struct {
	name   string
	filter string // of its tasks
	stage  string // arguments of bf-stage
	env    []string
}

const csvName = "listed.csv"

func (w *world) feeds() (tables, file feed) {
	return feed{name: "tables", filter: `^public\.(?!listed$)`, stage: "--until '" + until + "'", env: w.env},
		feed{name: "a CSV file", filter: `^public\.listed$`,
			stage: "--into listed --from 2024-01-14 --until '" + until + "' " + csvName,
			env:   append(w.env[:len(w.env):len(w.env)], "BF_SOURCE=csv:"+w.files)}
}

// bfStage stages all of a feed.
func (f feed) bfStage() string { return "bf-stage " + f.stage }

// pipeline is a form of it for the feed.
func (f feed) pipeline(form string) string {
	return strings.NewReplacer("{filter}", "--filter '"+f.filter+"'", "{stage}", f.stage).Replace(form)
}

// feed chooses one with pending tasks.
func (c *chaos) feed() feed {
	tables, file := c.feeds()
	r := c.query(c.target, "select count(*) filter (where kind = 'csv'), count(*) filter (where kind <> 'csv') "+
		"from __backfill.task where worked is null")[0].Rows[0]
	if string(r[1]) == "0" || string(r[0]) != "0" && c.rnd.IntN(4) == 0 {
		return file
	}
	return tables
}

// anyFeed chooses one for bf-stage.
func (c *chaos) anyFeed() feed {
	tables, file := c.feeds()
	if c.rnd.IntN(3) == 0 {
		return file
	}
	return tables
}

// list writes the file.
func (w *world) list() {
	w.t.Helper()
	var b strings.Builder
	b.WriteString("note,time,dev,val\n")
	for _, r := range w.source.Rows(w.t, `select format('"%s",%s,%s,%s', replace(note, '"', '""'), time, dev, val)
        from listed_rows order by time`) {
		b.WriteString(r[0] + "\n")
	}
	if err := os.WriteFile(filepath.Join(w.files, csvName), []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// change puts another file in its place for a moment: none, or half of it, which ends
// within quotes, so that it cannot be staged.
func (c *chaos) change(half bool) bool {
	path, kept := filepath.Join(c.files, csvName), filepath.Join(c.files, "kept")
	err := os.Rename(path, kept)
	if half && err == nil {
		var b []byte
		if b, err = os.ReadFile(kept); err == nil {
			end := bytes.LastIndex(b[:len(b)/2], []byte("\n\"")) + 3
			err = os.WriteFile(path, b[:end], 0o600)
		}
	}
	time.Sleep(c.ms(10, 150))
	if e := os.Rename(kept, path); err != nil || e != nil {
		c.t.Fatal(fmt.Errorf("change the file: %w, %w", err, e))
	}
	return true
}
