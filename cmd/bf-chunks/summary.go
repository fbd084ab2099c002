package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
)

// state is what a summary shows.
type state struct {
	each []*queue.Progress
	all  *queue.Progress
	busy int // connections of bf-load and bf-verify
}

func look(ctx context.Context, c *pg.Conn, filter string) (s state, err error) {
	if s.each, s.all, err = queue.Progresses(ctx, c, filter); err == nil {
		s.busy, err = queue.AtWork(ctx, c, "bf-load", "bf-verify")
	}
	return s, err
}

// summarize prints the summary once.
func summarize(e *cli.Env, c *pg.Conn, f *flags) error {
	s, err := look(e.Stop.Context, c, f.Filter)
	if err != nil {
		return err
	}
	if f.JSON {
		return s.records(e.Stdout)
	}
	columns, _ := cli.Size(e.Stdout)
	_, err = io.WriteString(e.Stdout, s.table(columns, 0))
	return err
}

// Control sequences of a terminal: to the alternate screen, as pagers use it, and
// back; and to the top left corner of a cleared screen.
const (
	enterScreen = "\x1b[?1049h"
	leaveScreen = "\x1b[?1049l"
	home        = "\x1b[H\x1b[2J"
)

// watch prints the summary again and again until nothing is pending and nobody
// is at work. On a terminal it is redrawn, also when the terminal is resized;
// the last one stays.
func watch(e *cli.Env, c *pg.Conn, f *flags) error {
	w := &watcher{Env: e, json: f.JSON, every: time.Duration(f.Every * float64(time.Second))}
	w.screen = cli.IsTerminal(e.Stdout) && !f.JSON && os.Getenv("TERM") != "dumb"
	resized := make(chan os.Signal, 1)
	if w.screen {
		signal.Notify(resized, syscall.SIGWINCH)
		io.WriteString(e.Stdout, enterScreen)
		defer w.leave()
	}
	// A stop also cancels a query, so that the screen is restored at once.
	ctx, cancel := context.WithCancel(e.Stop.Context)
	defer cancel()
	go func() { <-e.Stop.Requested(); cancel() }()
	for {
		now, err := look(ctx, c, f.Filter)
		switch {
		case e.Stop.Asked():
			return cli.Exit(cli.Stopped)
		case err != nil:
			return err
		}
		w.last = now
		if err := w.draw(); err != nil || now.all.Pending == 0 && now.busy == 0 {
			return err
		}
		if err := w.wait(resized); err != nil {
			return err
		}
	}
}

// watcher is what watch works with.
type watcher struct {
	*cli.Env
	json   bool
	every  time.Duration
	screen bool  // a terminal that is redrawn
	last   state // what was drawn
}

func (w *watcher) draw() (err error) {
	switch columns, lines := cli.Size(w.Stdout); {
	case w.json:
		err = w.last.records(w.Stdout)
	case w.screen:
		_, err = io.WriteString(w.Stdout, home+strings.TrimSuffix(w.last.table(columns, lines), "\n"))
	default:
		_, err = fmt.Fprintf(w.Stdout, "%s %s\n", time.Now().Format(time.TimeOnly), w.last.line())
	}
	return err
}

// wait waits until the next summary is due, and redraws meanwhile when the
// terminal is resized.
func (w *watcher) wait(resized <-chan os.Signal) error {
	for next := time.After(w.every); ; {
		select {
		case <-next:
			return nil
		case <-resized:
			if err := w.draw(); err != nil {
				return err
			}
		case <-w.Stop.Requested():
			return cli.Exit(cli.Stopped)
		}
	}
}

// leave restores the user's screen and prints the last summary on it.
func (w *watcher) leave() {
	io.WriteString(w.Stdout, leaveScreen)
	if w.last.all != nil {
		columns, _ := cli.Size(w.Stdout)
		io.WriteString(w.Stdout, w.last.table(columns, 0))
	}
}

// records prints the summary for machines.
func (s *state) records(w io.Writer) error {
	for _, p := range append(s.each, s.all) {
		if err := task.Write(w, p); err != nil {
			return err
		}
	}
	return nil
}

// line is the summary in one line.
func (s *state) line() string {
	p := s.all
	c := cli.Progress{Chunks: p.Total, ChunksDone: p.Done, Bytes: p.Bytes, BytesDone: p.BytesDone}
	return fmt.Sprintf("%s; %d failed, %d verified, %d unequal; %d at work", c.Line(p.Rate), p.Failed, p.Verified,
		p.Unequal, s.busy)
}

// table is the summary as a table, at most so many columns wide and lines
// high; 0 for any.
func (s *state) table(columns, lines int) string {
	rows := fold(s.rows(), lines)
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	gap := 2
	if columns > 0 {
		rest := 0
		for _, w := range widths[1:] {
			rest += w
		}
		if widths[0]+rest+gap*(len(widths)-1) > columns {
			gap = 1
		}
		widths[0] = min(widths[0], max(columns-rest-gap*(len(widths)-1), 4))
	}
	var b strings.Builder
	for _, r := range rows {
		line := fmt.Sprintf("%-*s", widths[0], shorten(r[0], widths[0]))
		for i, cell := range r[1:] {
			line += fmt.Sprintf("%*s", gap+widths[i+1], cell)
		}
		if columns > 0 {
			line = cli.Cut(line, columns)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	fmt.Fprintf(&b, "%d at work\n", s.busy)
	return b.String()
}

// rows are the cells of the table, its head first and the whole last.
func (s *state) rows() [][]string {
	rows := [][]string{{"hypertable", "chunks", "pending", "failed", "verified", "unequal", "bytes", "rate", "left"}}
	for _, p := range append(s.each, s.all) {
		name := "total"
		if p != s.all {
			name = cli.Clean(p.Hypertable.String())
		}
		rate, left := "-", "-"
		if p.Rate > 0 {
			rate = cli.Bytes(int64(p.Rate)) + "/s"
		}
		if p.Left > 0 {
			left = cli.Duration(p.Left)
		}
		rows = append(rows, []string{name, fmt.Sprintf("%d/%d", p.Done, p.Total), fmt.Sprint(p.Pending),
			fmt.Sprint(p.Failed),
			fmt.Sprint(p.Verified), fmt.Sprint(p.Unequal), cli.Share(p.BytesDone, p.Bytes), rate, left})
	}
	return rows
}

// fold leaves out rows in the middle, so that the table and the line below it
// take that many lines at most; 0 for any number.
func fold(rows [][]string, lines int) [][]string {
	const head, foot = 1, 2 // lines that are always shown
	hidden := len(rows) + 1 - lines
	if lines == 0 || hidden <= 0 || len(rows) <= head+foot {
		return rows
	}
	keep := max(len(rows)-hidden-1, head+1)
	more := make([]string, len(rows[0]))
	more[0] = fmt.Sprintf("… %d more", len(rows)-1-keep)
	return append(rows[:keep:keep], more, rows[len(rows)-1])
}

// shorten takes the middle out of a name: both ends tell more.
func shorten(name string, most int) string {
	r := []rune(name)
	if len(r) <= most {
		return name
	}
	head := most / 3
	return string(r[:head]) + "…" + string(r[len(r)-(most-head-1):])
}
