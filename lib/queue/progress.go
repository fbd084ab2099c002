package queue

import (
	"context"
	_ "embed"
	"strings"
	"time"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

//go:embed progress.sql
var progressSQL string

// Progress counts the tasks of one hypertable, or all of them, by state.
type Progress struct {
	V int `json:"v"`
	// Hypertable is absent in the record that counts all tasks.
	Hypertable task.Name `json:"hypertable,omitzero"`
	Total      int64     `json:"total"` // chunks, as the following
	Done       int64     `json:"done"`
	Pending    int64     `json:"pending"`
	Failed     int64     `json:"failed"`   // pending, and the last attempt failed
	Verified   int64     `json:"verified"` // and equal
	Unequal    int64     `json:"unequal"`  // compared, and not found equal: different, gone or failed
	Bytes      int64     `json:"bytes"`
	BytesDone  int64     `json:"bytes_done"`
	Rate       float64   `json:"rate,omitempty"`         // bytes per second, lately
	Left       float64   `json:"seconds_left,omitempty"` // at that rate
}

// Progresses returns the progress per hypertable, and that of all of them. filter
// is that of a Selection.
func Progresses(ctx context.Context, c *pg.Conn, filter string) (each []*Progress, all *Progress, err error) {
	which, args := Selection{State: All, Filter: filter}.where()
	rows, err := c.Query(ctx, strings.Replace(progressSQL, "{which}", which, 1), args...)
	if err != nil {
		return nil, nil, filterError(c, err, filter)
	}
	each, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Progress, error) {
		p := &Progress{V: task.Version}
		err := r.Scan(&p.Hypertable.Schema, &p.Hypertable.Name, &p.Total, &p.Done, &p.Failed, &p.Verified, &p.Unequal,
			&p.Bytes, &p.BytesDone, &p.Rate)
		p.Pending = p.Total - p.Done
		return p, err
	})
	if err != nil {
		return nil, nil, filterError(c, err, filter)
	}
	n := len(each) - 1 // the last row counts all tasks; it always exists
	each, all = each[:n], each[n]
	for _, p := range append(each, all) {
		rate := p.Rate
		if rate == 0 {
			rate = all.Rate // nothing of it has been copied yet
		}
		if rate > 0 {
			p.Left = float64(p.Bytes-p.BytesDone) / rate
		}
	}
	return each, all, nil
}

// AtWork returns how many processes of these commands are connected to the
// database. A command has one connection with just its name.
func AtWork(ctx context.Context, c *pg.Conn, tools ...string) (n int, err error) {
	err = c.QueryRow(ctx, "select count(*) from pg_stat_activity where datname = current_database() "+
		"and application_name = any($1)", tools).Scan(&n)
	return n, c.Wrap(err, "look who is at work")
}

// How often Alone looks: while alone, often enough to stop drawing soon after
// another one has connected.
const (
	aloneEvery  = time.Second
	sharedEvery = 10 * time.Second
)

// Alone calls shown again and again until ctx ends: with true if the caller is the
// only process of this command that is connected to the database. It uses a
// connection of its own. The first call comes after a second, because lanes are
// started together.
func Alone(ctx context.Context, connString, tool string, shown func(c *pg.Conn, alone bool)) {
	var c *pg.Conn
	defer func() { c.Close() }()
	for wait := aloneEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		var n int
		var err error
		if c == nil {
			c, err = pg.Connect(ctx, pg.Target, connString, pg.Options{Application: tool + " progress"})
		}
		if err == nil {
			n, err = AtWork(ctx, c, tool)
		}
		if ctx.Err() != nil {
			return
		}
		shown(c, err == nil && n == 1)
		if wait = aloneEvery; err != nil || n != 1 {
			c.Close()
			c, wait = nil, sharedEvery
		}
	}
}
