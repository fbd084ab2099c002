package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
)

// summary is how far each hypertable is, from the tasks alone.
type summary struct {
	each []*queue.Progress
	all  *queue.Progress
	busy int // connections of bf-load and bf-verify
}

func readSummary(ctx context.Context, c *pg.Conn, filter string) (s summary, err error) {
	if s.each, s.all, err = queue.Progresses(ctx, c, filter); err == nil {
		s.busy, err = queue.AtWork(ctx, c, "bf-load", "bf-verify")
	}
	return s, err
}

// Summarize prints the summary once.
func Summarize(e *cli.Env, c *pg.Conn, o Options) error {
	s, err := readSummary(e.Stop.Context, c, o.Filter)
	if err != nil {
		return err
	}
	if o.Records {
		return s.records(e.Stdout)
	}
	columns, _ := cli.Size(e.Stdout)
	_, err = io.WriteString(e.Stdout, s.table(columns))
	return err
}

// Watch shows the view on a terminal, and leaves the summary behind. Elsewhere it
// prints the summary again and again until nothing is pending and nobody is at work.
func Watch(e *cli.Env, c *pg.Conn, o Options) error {
	if cli.Redraws(e.Stdout) && !o.Records {
		err := Run(e, o)
		return errors.Join(err, Summarize(e, c, o))
	}
	for {
		now, err := readSummary(e.Stop.Context, c, o.Filter)
		if err != nil {
			return err
		}
		if o.Records {
			err = now.records(e.Stdout)
		} else {
			_, err = fmt.Fprintf(e.Stdout, "%s %s\n", time.Now().Format(time.TimeOnly), now.line())
		}
		if err != nil || now.all.Pending == 0 && now.busy == 0 {
			return err
		}
		select {
		case <-time.After(o.Every):
		case <-e.Stop.Requested():
			return cli.Exit(cli.Stopped)
		}
	}
}

// records prints the summary for machines.
func (s *summary) records(w io.Writer) error {
	for _, p := range append(s.each, s.all) {
		if err := task.Write(w, p); err != nil {
			return err
		}
	}
	return nil
}

// line is the summary in one line.
func (s *summary) line() string {
	p := s.all
	c := cli.Progress{Chunks: p.Total, ChunksDone: p.Done, Bytes: p.Bytes, BytesDone: p.BytesDone}
	return fmt.Sprintf("%s; %d failed, %d verified, %d unequal; %d at work", c.Line(p.Rate), p.Failed, p.Verified,
		p.Unequal, s.busy)
}

// dropped are the columns of the table that a narrow terminal does without, the least
// wanted first: left, rate, bytes, verified, pending, unequal, failed.
var dropped = []int{8, 7, 6, 4, 2, 5, 3}

// table is the summary as a table, at most so many columns wide; 0 for any.
func (s *summary) table(columns int) string {
	rows := s.rows()
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], cli.Width(cell))
		}
	}
	gap := 2
	if columns > 0 {
		const name = 12 // that much of a hypertable's name is to be read
		room := func() int {
			n := columns
			for _, w := range widths[1:] {
				if w > 0 {
					n -= gap + w
				}
			}
			return n
		}
		if room() < widths[0] {
			gap = 1
		}
		for _, i := range dropped {
			if room() < min(widths[0], name) {
				widths[i] = 0
			}
		}
		widths[0] = min(widths[0], max(room(), 4))
	}
	var b strings.Builder
	for _, r := range rows {
		name := Shorten(r[0], widths[0])
		line := name + strings.Repeat(" ", widths[0]-cli.Width(name))
		for i, cell := range r[1:] {
			if w := widths[i+1]; w > 0 {
				line += fmt.Sprintf("%*s", gap+w, cell)
			}
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
func (s *summary) rows() [][]string {
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
			fmt.Sprint(p.Failed), fmt.Sprint(p.Verified), fmt.Sprint(p.Unequal),
			cli.Share(p.BytesDone, p.Bytes), rate, left})
	}
	return rows
}
