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
// wanted first: left, rate, bytes, verified, pending, unequal, failed. So much of a
// hypertable's name is to be read.
var dropped = []yields{{8, 12}, {7, 12}, {6, 12}, {4, 12}, {2, 12}, {5, 12}, {3, 12}}

// table is the summary as a table, at most so many columns wide; 0 for any.
func (s *summary) table(columns int) string {
	lines := layout{columns, "", true, dropped}.table(s.rows())
	return strings.Join(lines, "\n") + fmt.Sprintf("\n%d at work\n", s.busy)
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
