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
func summarize(c *pg.Conn, f *flags, stdout io.Writer, log *cli.Log, stop *cli.Stop) int {
	s, err := look(stop.Context, c, f.Filter)
	if err != nil {
		return failed(log, err)
	}
	if f.JSON {
		err = s.records(stdout)
	} else {
		columns, _ := cli.Size(stdout)
		_, err = io.WriteString(stdout, s.table(columns, 0))
	}
	if err != nil {
		return failed(log, err)
	}
	return cli.OK
}

// What a terminal understands: another screen, as pagers use it, which leaves
// the user's own untouched; and the cursor in its first line, all cleared.
const (
	enterScreen = "\x1b[?1049h"
	leaveScreen = "\x1b[?1049l"
	home        = "\x1b[H\x1b[2J"
)

// watch prints the summary again and again until nothing is pending and nobody
// is at work. On a terminal it is redrawn, also when the terminal is resized;
// the last one stays.
func watch(c *pg.Conn, f *flags, stdout io.Writer, log *cli.Log, stop *cli.Stop) int {
	screen := cli.IsTerminal(stdout) && !f.JSON && os.Getenv("TERM") != "dumb"
	resized := make(chan os.Signal, 1)
	if screen {
		signal.Notify(resized, syscall.SIGWINCH)
		io.WriteString(stdout, enterScreen)
	}
	// A stop ends a query as well: the user's screen has to come back.
	ctx, cancel := context.WithCancel(stop.Context)
	defer cancel()
	go func() { <-stop.Requested(); cancel() }()
	s, status, err := state{}, cli.OK, error(nil)
	for {
		now, lookErr := look(ctx, c, f.Filter)
		if stop.Asked() {
			status = cli.Stopped
			break
		}
		if err = lookErr; err != nil {
			break
		}
		s = now
		draw := func() {
			switch columns, lines := cli.Size(stdout); {
			case f.JSON:
				err = s.records(stdout)
			case screen:
				_, err = io.WriteString(stdout, home+strings.TrimSuffix(s.table(columns, lines), "\n"))
			default:
				_, err = fmt.Fprintf(stdout, "%s %s\n", time.Now().Format(time.TimeOnly), s.line())
			}
		}
		draw()
		over := s.all.Pending == 0 && s.busy == 0
		for next := time.After(time.Duration(f.Every * float64(time.Second))); next != nil && !over && err == nil && !stop.Asked(); {
			select {
			case <-next:
				next = nil
			case <-resized:
				draw()
			case <-stop.Requested():
			}
		}
		if over || err != nil {
			break
		}
		if stop.Asked() {
			status = cli.Stopped
			break
		}
	}
	if screen {
		io.WriteString(stdout, leaveScreen)
		if s.all != nil {
			columns, _ := cli.Size(stdout)
			io.WriteString(stdout, s.table(columns, 0))
		}
	}
	if err != nil {
		return failed(log, err)
	}
	return status
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
	c := cli.Course{Chunks: p.Total, ChunksDone: p.Done, Bytes: p.Bytes, BytesDone: p.BytesDone}
	return fmt.Sprintf("%s; %d failed, %d verified, %d unequal; %d at work", c.Line(p.Rate), p.Failed, p.Verified, p.Unequal, s.busy)
}

// table is the summary as a table, at most so many columns wide and lines
// high; 0 for any.
func (s *state) table(columns, lines int) string {
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
		rows = append(rows, []string{name, fmt.Sprintf("%d/%d", p.Done, p.Total), fmt.Sprint(p.Pending), fmt.Sprint(p.Failed),
			fmt.Sprint(p.Verified), fmt.Sprint(p.Unequal), cli.Of(p.BytesDone, p.Bytes), rate, left})
	}
	const head, foot = 1, 2 // lines that are always shown
	if hidden := len(rows) + 1 - lines; lines > 0 && hidden > 0 && len(rows) > head+foot {
		keep := max(len(rows)-hidden-1, head+1)
		more := make([]string, len(rows[0]))
		more[0] = fmt.Sprintf("… %d more", len(rows)-1-keep)
		rows = append(rows[:keep:keep], more, rows[len(rows)-1])
	}
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

// shorten takes the middle out of a name: both ends tell more.
func shorten(name string, most int) string {
	r := []rune(name)
	if len(r) <= most {
		return name
	}
	head := most / 3
	return string(r[:head]) + "…" + string(r[len(r)-(most-head-1):])
}
