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
	busy   float64       // seconds in which something was being copied, as far back as the tasks tell
	last   time.Time     // of the last look
	waits  time.Duration // until the next one
	copied map[int32]sum // by process
	round  time.Duration // a round trip to the server and back
	ahead  time.Duration // of our clock is the server's
	took   time.Duration // what the server took for the last look, about
}

// sum adds up the COPY commands of a task in hand: a bf-load may copy in parts.
type sum struct{ task, parts, last int64 }

// newLooker starts on its own connection.
func newLooker(ctx context.Context, c *pg.Conn, filter string) (*looker, error) {
	began := time.Now()
	var clock time.Time
	if err := c.QueryRow(ctx, "select clock_timestamp()").Scan(&clock); err != nil {
		return nil, c.Wrap(err, "look how far it is")
	}
	round := time.Since(began)
	return &looker{conn: c, filter: filter, copied: map[int32]sum{}, round: round,
		ahead: clock.Sub(began.Add(round / 2))}, nil
}

// look reads the state. It returns queue.ErrNone while nothing is staged.
func (l *looker) look(ctx context.Context) error {
	if !l.staged {
		if err := l.first(ctx); err != nil {
			l.last = time.Now()
			return err
		}
	}
	began := time.Now()
	each, workers, err := queue.Look(ctx, l.conn, l.filter)
	if err != nil {
		return err
	}
	l.took = max(time.Since(began)-l.round, 0)
	if l.filter != "" { // without those that work on what the filter leaves out
		workers = slices.DeleteFunc(workers, func(w *queue.Worker) bool {
			return w.Task != 0 && !slices.ContainsFunc(each, func(c *queue.Counts) bool {
				return c.Hypertable == w.Hypertable
			})
		})
	}
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
	l.busy, err = queue.BusyBefore(ctx, l.conn, l.filter)
	l.staged = err == nil
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

// phase is told by the commands that are connected; while none is, the last one goes on.
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

// late is how much later than planned a look may come on a busy machine.
const late = 5 * time.Second

// rates measures how fast it goes. The rate of the whole counts the time in which
// something was being copied, as far back as the tasks tell: between two looks
// something was, if a lane is there or something has arrived. Time in which this command
// was suspended (^Z) does not count: the lanes were suspended as well.
func (l *looker) rates(s *State) {
	if s.Phase != l.state.Phase {
		l.meter = cli.Meter{}
	}
	now, done := time.Now(), s.course().BytesDone
	if s.Phase == Copy && !l.last.IsZero() && (len(s.lanes()) > 0 || done > l.state.course().BytesDone) {
		l.busy += min(now.Sub(l.last), l.waits+late).Seconds()
	}
	l.last = now
	s.Recent = l.meter.Rate(float64(done))
	if s.Phase == Copy && l.busy > 0 {
		s.Whole = float64(done) / l.busy
	}
}

// lookShare is which part of the server's time looking may take: one hundredth.
const lookShare = 100

// pause is how long to wait before the next look: every at least, and long enough that
// looking costs the server 1 % of one processor at most.
func (l *looker) pause(every time.Duration) time.Duration {
	l.waits = max(every, lookShare*l.took)
	return l.waits
}
