package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
)

// Options say what is watched, and how.
type Options struct {
	Target, Filter string
	Every          time.Duration // between two looks, at least
	Records        bool          // print records instead, for machines
	// Messages is a file to which the commands that do the work append their messages:
	// they are printed above the view. With it, the view goes on until it is told to stop,
	// also where nothing is staged yet.
	Messages io.Reader
}

// watcher shows what a looker sees.
type watcher struct {
	Options
	*cli.Env
	log  *cli.Log // on the terminal that shows the view
	live *cli.Live

	mu    sync.Mutex
	state State // the last one

	failed  time.Time // of the last failure that was printed
	idle    int       // looks at which nobody was at work
	began   map[Phase]*span
	printed time.Time // the last line, where nothing is redrawn
	percent int       // in that line
}

// span is a phase that was seen to begin.
type span struct {
	at    time.Time
	since time.Time // what was done in it has not been told
}

// Run shows the backfill on a terminal until it is done, or until a stop is requested.
func Run(e *cli.Env, o Options) error {
	w := &watcher{Options: o, Env: e, log: cli.NewLog(e.Name, e.Stdout, cli.Common{}), began: map[Phase]*span{},
		failed: time.Now(), printed: time.Now()}
	if o.Messages != nil {
		w.log = cli.NewLog("bf-backfill", e.Stdout, cli.Common{})
	}
	w.live = w.log.Block(w.block)
	w.live.Show(true)
	defer w.live.Show(false)
	var passing sync.WaitGroup
	if o.Messages != nil {
		passing.Go(func() { w.pass(o.Messages) })
	}
	err := w.watch()
	passing.Wait()
	return err
}

func (w *watcher) block(columns, rows int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Phase == "" && w.Messages == nil {
		return nil
	}
	return w.state.Block(columns, rows)
}

// watch looks again and again. Under bf-backfill no error ends it: it has messages to pass
// on.
func (w *watcher) watch() error {
	ctx, cancel := context.WithCancel(w.Stop.Context)
	defer cancel()
	go func() { <-w.Stop.Requested(); time.Sleep(time.Second); cancel() }() // for the last look
	if w.Messages != nil {
		w.state.Phase = Stage
		for _, p := range []Phase{Stage, Copy, Verify} { // nobody is at work yet
			w.begin(p)
		}
	}
	var l *looker
	defer func() {
		if l != nil {
			l.conn.Close()
		}
	}()
	for {
		var err error
		if l == nil || l.conn.Lost() {
			l, err = w.open(ctx)
		}
		if err == nil {
			err = l.look(ctx)
		}
		asked := w.Stop.Asked()
		switch {
		case err == nil:
			w.seen(ctx, l)
		case errors.Is(err, queue.ErrNone) && w.Messages != nil:
			w.nothing()
		case w.Messages != nil: // the commands say what is wrong
		case asked:
			return cli.Exit(cli.Stopped)
		default:
			return err
		}
		pause := w.Every
		if l != nil {
			pause = l.pause(w.Every)
		}
		switch {
		case asked && w.Messages != nil:
			w.ended(ctx, l, "")
			return nil
		case asked:
			return cli.Exit(cli.Stopped)
		case err == nil && w.over():
			w.ended(ctx, l, "")
			return nil
		}
		select {
		case <-time.After(pause):
		case <-w.Stop.Requested():
		}
	}
}

func (w *watcher) open(ctx context.Context) (*looker, error) {
	options := pg.Options{Application: w.Name + " --watch"}
	c, err := pg.Connect(ctx, pg.Target, w.Target, options)
	if err != nil {
		return nil, err
	}
	l, err := newLooker(ctx, c, w.Filter)
	if err != nil {
		c.Close()
	}
	return l, err
}

// over reports whether all is done and nobody is at work, not for a moment only:
// between two phases nobody is. Under bf-backfill it is never over by itself.
func (w *watcher) over() bool {
	if w.Messages != nil || w.state.all().Pending() > 0 || len(w.state.Workers) > 0 {
		w.idle = 0
		return false
	}
	w.idle++
	return w.idle > 1
}

// seen takes over what was seen, and tells what has changed.
func (w *watcher) seen(ctx context.Context, l *looker) {
	w.mu.Lock()
	before := w.state
	w.state = l.state
	w.mu.Unlock()
	if before.Each == nil {
		before.Each = w.state.Each // what is done already is no news
	}
	for _, p := range []Phase{Copy, Verify} { // even if it is over before it is seen
		w.begin(p)
	}
	if w.Messages == nil {
		w.tellFailures(ctx, l.conn)
	}
	w.tellDone(before.Each)
	if before.Phase != w.state.Phase {
		w.ended(ctx, l, w.state.Phase)
	}
	if w.live == nil {
		w.line()
	}
}

// nothing is staged yet: all that comes is news.
func (w *watcher) nothing() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Each = []*queue.Counts{}
}

// chunks is a number of chunks in words.
func chunks(n int64) string {
	if n == 1 {
		return "1 chunk"
	}
	return fmt.Sprintf("%d chunks", n)
}

func (w *watcher) begin(p Phase) {
	if now := time.Now(); w.began[p] == nil {
		w.began[p] = &span{now, now}
	}
}

// tellFailures prints what failed since the last look. Under bf-backfill the commands say
// so themselves.
func (w *watcher) tellFailures(ctx context.Context, c *pg.Conn) {
	if w.state.all().Failed == 0 {
		return
	}
	failures, _ := queue.Failures(ctx, c, w.Filter, w.failed)
	for _, f := range failures {
		w.log.Warn("failed: %s %s: %s", f.Hypertable, f.Place(), f.Message)
		w.failed = f.At
	}
}

// tellDone tells which hypertables have been completed since.
func (w *watcher) tellDone(before []*queue.Counts) {
	pending := map[string]bool{}
	for _, c := range before {
		pending[c.Hypertable.String()] = c.Pending() > 0
	}
	for _, c := range w.state.Each {
		if before, known := pending[c.Hypertable.String()]; c.Pending() == 0 && (before || !known) {
			w.log.Info("%s: all of it copied, %s, %s", c.Hypertable, chunks(c.Total), cli.Bytes(c.Bytes))
		}
	}
}

// ended tells what has been done in the phases that are over, now that another one
// has begun ("" for none).
func (w *watcher) ended(ctx context.Context, l *looker, now Phase) {
	for _, p := range []Phase{Copy, Verify} {
		s := w.began[p]
		if s == nil || p == now || l == nil {
			continue
		}
		all, err := queue.Since(ctx, l.conn, w.Filter, s.since.Add(l.ahead))
		if err != nil {
			continue
		}
		n, bytes, what := all.Done, all.BytesDone, "copied"
		if p == Verify {
			n, bytes, what = all.Verified, all.BytesVerified, "found equal"
		}
		if n == 0 {
			continue
		}
		took := time.Since(s.at).Seconds()
		w.log.Info("%s %s, %s in %s, %s", chunks(n), what, cli.Bytes(bytes), cli.Duration(took),
			rate(float64(bytes)/max(took, 0.1)))
		s.at, s.since = time.Now(), time.Now()
	}
	if s := w.began[now]; s != nil {
		s.at = time.Now()
	}
}

// line prints a line per minute or per percent, whichever is rarer.
func (w *watcher) line() {
	p := percent(w.state.course())
	if p == w.percent || time.Since(w.printed) < time.Minute {
		return
	}
	w.printed, w.percent = time.Now(), p
	w.log.Info("%s", w.state.Line())
}

// passEvery is how often to look for messages.
const passEvery = 200 * time.Millisecond

// pass passes on what is appended to the file, in whole lines, until a stop is
// requested and all is passed on.
func (w *watcher) pass(r io.Reader) {
	var line strings.Builder
	buf := make([]byte, 16<<10)
	for {
		asked := w.Stop.Asked()
		n, err := r.Read(buf)
		text := string(buf[:n])
		if end := strings.LastIndexByte(text, '\n'); end >= 0 {
			line.WriteString(text[:end+1])
			w.log.Pass(line.String())
			line.Reset()
			text = text[end+1:]
		}
		line.WriteString(text)
		switch {
		case err == nil:
		case asked || !errors.Is(err, io.EOF):
			if line.Len() > 0 {
				w.log.Pass(fmt.Sprintln(line.String()))
			}
			return
		default:
			select {
			case <-time.After(passEvery):
			case <-w.Stop.Requested():
			}
		}
	}
}
