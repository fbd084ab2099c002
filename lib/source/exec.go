package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"bf/lib/csv"
	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
)

// Command is a source that is a shell command: run once per task, with the range in
// its environment, it prints the rows as CSV. The command comes from the command line or the
// environment of the user, never from a record.
type Command struct {
	shell  string
	stderr io.Writer
}

// Close is of CSV: between two tasks there is nothing of a command.
func (c *Command) Close() {}

// Lines is of CSV: there is no file.
func (c *Command) Lines() *stream.Lines { return nil }

// Rows runs the command for a task. begin gets the columns, before the first of the
// rows, which write gets as COPY text. The rows are good only if there is no error: the
// command ended with status 0, in the end of a line, and all of them are in the range.
func (c *Command) Rows(ctx context.Context, t *task.Task, begin func([]stream.Column) error,
	write func([]byte) error) (rows int64, err error) {
	if t.Kind != task.KindExec {
		return 0, otherSource(t, "a command")
	}
	cmd, err := c.command(t)
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return 0, commandFailed(t, err)
	}
	rows, err = c.read(ctx, cmd, func() (int64, error) { return copyCSV(out, t, begin, write) })
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return rows, ctx.Err()
	case errors.As(err, &ended):
		return rows, commandFailed(t, ended)
	}
	return rows, err
}

// read has f read what a process prints, and waits for its end. A process that has failed is a
// better reason than what is wrong with its last line. One that still prints
// when nobody reads is ended.
func (c *Command) read(ctx context.Context, cmd *exec.Cmd, f func() (int64, error)) (rows int64, err error) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
			terminate(cmd.Process.Pid, done)
		case <-done:
		}
	}()
	rows, err = f()
	var overdue <-chan time.Time
	if err != nil {
		overdue = time.After(endsAfter)
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	select {
	case e := <-waited:
		if e != nil {
			err = e
		}
	case <-overdue:
		terminate(cmd.Process.Pid, done)
		<-waited
	}
	close(done)
	<-stopped
	return rows, err
}

// command is the process of a task. It has a process group of its own: the first ^C lets
// it end, as it lets a chunk end, and the second ends all of it.
func (c *Command) command(t *task.Task) (*exec.Cmd, error) {
	from, until, err := bounds(t)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", c.shell)
	to := t.Target()
	cmd.Env = append(os.Environ(),
		"BF_TABLE="+pg.Ident(to.Schema, to.Name),
		"BF_FROM="+from, "BF_FROM_US="+t.Range.From,
		"BF_UNTIL="+until, "BF_UNTIL_US="+t.Range.Until)
	cmd.Stderr = c.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// bounds are the ends of the range as the time column reads them.
func bounds(t *task.Task) (from, until string, err error) {
	f, err := csv.Dialect{}.Format()
	if err != nil {
		return "", "", err
	}
	var clock *csv.Clock
	for _, c := range t.Scan.Columns {
		if c.Name == t.Range.Column {
			clock, err = f.Clock(c.Type)
		}
	}
	if err != nil || clock == nil {
		return "", "", fmt.Errorf("%s: no column %q that tells the time: %w", t, t.Range.Column, err)
	}
	lo, hi := t.Range.Bounds()
	return string(clock.Append(nil, lo)), string(clock.Append(nil, hi)), nil
}

// endsAfter is how long a process has to end by itself when what it printed was wrong.
const endsAfter = 200 * time.Millisecond

// killAfter is how long a process group has to end after it was asked to.
const killAfter = 400 * time.Millisecond

// terminate ends a process group; done is closed when its first process has ended.
func terminate(group int, done <-chan struct{}) {
	_ = syscall.Kill(-group, syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(killAfter):
	}
	_ = syscall.Kill(-group, syscall.SIGKILL)
}

// copyCSV turns what a command prints into rows.
func copyCSV(out io.Reader, t *task.Task, begin func([]stream.Column) error,
	write func([]byte) error) (rows int64, err error) {
	format, err := csv.Dialect(t.Scan.Dialect).Format()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", t, err)
	}
	r := csv.NewReader(out, format)
	r.File = "output of the command"
	columns, err := fieldsOf(r, t)
	if err == io.EOF { // it printed nothing at all, not even a header
		return 0, begin([]stream.Column{keyColumn(t)})
	}
	if err != nil {
		return 0, badCSV(t, err)
	}
	if err := r.Columns(columns, t.Range.Column); err != nil {
		return 0, badCSV(t, err)
	}
	if err := begin(kept(columns)); err != nil {
		return 0, err
	}
	lo, hi := t.Range.Bounds()
	for {
		row, err := r.Next()
		switch {
		case err == io.EOF:
			return rows, nil
		case err != nil:
			return rows, badCSV(t, err)
		case row.More:
		case row.Time < lo || row.Time >= hi:
			return rows, badCSV(t, fmt.Errorf("%s:%d: row outside of %s (%s)", r.File, row.Line, &t.Range,
				r.TimeText(row.Time)))
		case row.Cut:
			return rows, badCSV(t, fmt.Errorf("%s:%d: ends in the middle of a line", r.File, row.Line))
		default:
			rows++
		}
		if err := write(row.Text); err != nil {
			return rows, err
		}
	}
}

// fieldsOf says what the fields of the records are: by the names of the header, or by
// place. It reads the header.
func fieldsOf(r *csv.Reader, t *task.Task) (columns []csv.Column, err error) {
	columns = columnsOf(t)
	if t.Scan.Header == task.HeaderNone {
		return columns, nil
	}
	names, err := r.Header()
	if err != nil || t.Scan.Header == task.HeaderSkip {
		return columns, err
	}
	return csv.Match(r.File, names, columns)
}

func badCSV(t *task.Task, err error) error {
	hint := ""
	var bad *csv.Error
	if errors.As(err, &bad) && bad.Line == 1 {
		hint = "bf-stage takes --no-header, --columns, --delimiter, --quote and --null where it is not the default CSV"
	}
	return &pg.Error{Side: pg.Source, Object: t.String(), Err: err, Hint: hint}
}

func commandFailed(t *task.Task, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			err = fmt.Errorf("the command was ended by signal %d (%s)", w.Signal(), w.Signal())
		} else {
			err = fmt.Errorf("the command ended with exit status %d", exit.ExitCode())
		}
	}
	return &pg.Error{Side: pg.Source, Object: t.String(), Err: err}
}
