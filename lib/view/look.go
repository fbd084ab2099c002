package view

import (
	"context"
	"slices"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
)

// looker reads the state from the target again and again.
type looker struct {
	conn   *pg.Conn
	filter string

	state  State
	staged bool          // there are tasks to read
	meter  cli.Meter     // of the phase
	before float64       // bytes copied before the first look
	busy   float64       // seconds in which they were
	last   time.Time     // of the last look in which something was being copied
	copied map[int32]sum // by process
	round  time.Duration // a round trip to the server and back
	took   time.Duration // what the server took for the last look, about
}

// sum adds up the COPY commands of a task in hand: a bf-load may copy in parts.
type sum struct{ task, parts, last int64 }

// newLooker starts on its own connection.
func newLooker(ctx context.Context, c *pg.Conn, filter string) (*looker, error) {
	began := time.Now()
	if _, err := c.Exec(ctx, "select"); err != nil {
		return nil, c.Wrap(err, "look how far it is")
	}
	return &looker{conn: c, filter: filter, copied: map[int32]sum{}, round: time.Since(began)}, nil
}

// look reads the state. It returns queue.ErrNone while nothing is staged.
func (l *looker) look(ctx context.Context) error {
	if !l.staged {
		if err := l.first(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	workers, err := queue.Workers(ctx, l.conn)
	if err != nil {
		return err
	}
	each, err := queue.CountEach(ctx, l.conn, l.filter)
	if err != nil {
		return err
	}
	l.took = max(time.Since(began)-2*l.round, 0)
	for _, w := range workers {
		l.addParts(w)
	}
	s := State{Phase: phase(l.state.Phase, workers, each), Each: each, Workers: workers}
	l.rates(&s)
	l.state = s
	return nil
}

// first makes sure that there is something to read, and that it is to be trusted.
func (l *looker) first(ctx context.Context) (err error) {
	if err := queue.Check(ctx, l.conn); err != nil {
		return err
	}
	var bytes int64
	bytes, l.busy, err = queue.CopiedBefore(ctx, l.conn)
	l.before, l.staged = float64(bytes), err == nil
	return err
}

// addParts makes Copied what the process has copied of its task, in all its parts.
func (l *looker) addParts(w *queue.Worker) {
	s := l.copied[w.PID]
	switch {
	case s.task != w.Task:
		s = sum{task: w.Task}
	case w.Copied < s.last:
		s.parts += s.last
	}
	s.last = w.Copied
	l.copied[w.PID] = s
	w.Copied += s.parts
}

// phase is that of those who are at work; between two of them the last one goes on.
func phase(before Phase, workers []*queue.Worker, each []*queue.Counts) Phase {
	for _, p := range []struct {
		tool  string
		phase Phase
	}{{"bf-load", Copy}, {"bf-verify", Verify}, {"bf-caggs", Refresh}, {"bf-stage", Stage}} {
		if slices.ContainsFunc(workers, func(w *queue.Worker) bool { return w.Tool == p.tool }) {
			return p.phase
		}
	}
	pending := slices.ContainsFunc(each, func(c *queue.Counts) bool { return c.Pending() > 0 })
	if pending || before == "" {
		return Copy
	}
	return before
}

// rates measures how fast it goes. The rate of the whole counts the time in which
// something was being copied, as far back as the tasks tell.
func (l *looker) rates(s *State) {
	if s.Phase != l.state.Phase {
		l.meter = cli.Meter{}
	}
	now := time.Now()
	if s.Phase == Copy && len(s.lanes()) > 0 {
		if !l.last.IsZero() {
			l.busy += now.Sub(l.last).Seconds()
		}
		l.last = now
	} else {
		l.last = time.Time{}
	}
	done := float64(s.course().BytesDone)
	s.Recent = l.meter.Rate(done)
	if s.Phase == Copy && l.busy > 0 {
		s.Whole = done / l.busy
	}
}

// lookShare is which part of the server's time looking may take: one hundredth.
const lookShare = 100

// pause is how long to wait before the next look: at least every, and so long
// that looking costs the server 1 % of one processor at most.
func (l *looker) pause(every time.Duration) time.Duration { return max(every, lookShare*l.took) }
