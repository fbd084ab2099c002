package lane

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/task"
)

// progress shows how far the backfill is. It redraws one line if stderr is a
// terminal and no other bf-load is connected to the target. Otherwise there is a
// line per chunk, so that lanes that share a terminal do not overwrite each other.
type progress struct {
	*cli.Env
	r     *stream.Reader
	live  *cli.Live
	meter cli.Meter

	counted time.Time // when count last asked the target

	mu     sync.Mutex
	course cli.Progress // of the whole backfill: others may be at it
	chunk  string       // in hand
	since  time.Time    // when it began
	expect int64        // bytes that its stream is expected to have
	before int64        // bytes that had been read before it

	watch  sync.WaitGroup // for other bf-load
	cancel context.CancelFunc

	began         time.Time
	chunks, bytes int64 // loaded by this process
}

func newProgress(e *cli.Env, r *stream.Reader) *progress {
	p := &progress{Env: e, r: r, began: time.Now()}
	p.live = e.Log.Live(p.line)
	e.Stop.Waiting(p.waitingFor)
	return p
}

// open is called once the target is known to be there.
func (p *progress) open(ctx context.Context, c *pg.Conn, connString string) error {
	if err := p.count(ctx, c); err != nil || p.live == nil {
		return err
	}
	ctx, p.cancel = context.WithCancel(ctx)
	p.watch.Add(1)
	go func() {
		defer p.watch.Done()
		queue.Alone(ctx, connString, p.Name, func(c *pg.Conn, alone bool) {
			if alone && !p.live.Shown() {
				p.look(ctx, c)
			}
			p.live.Show(alone)
		})
	}()
	return nil
}

// shown reports whether the live line is shown: then a chunk needs no line of
// its own.
func (p *progress) shown() bool { return p.live.Shown() }

// look asks the target how far the backfill is: others may have loaded chunks.
func (p *progress) look(ctx context.Context, c *pg.Conn) {
	if _, all, err := queue.Progresses(ctx, c, ""); err == nil {
		p.mu.Lock()
		p.course = cli.Progress{Chunks: all.Total, ChunksDone: all.Done, Bytes: all.Bytes, BytesDone: all.BytesDone}
		p.mu.Unlock()
	}
}

// How often the target is asked how many tasks are done. With few pending tasks it
// is asked every time, so that the last lines are exact.
const (
	countEvery = time.Second
	countFew   = 100
)

// count updates the number of tasks and of those that are done, by whatever
// process. Task numbers cannot tell: tasks are added and deleted.
func (p *progress) count(ctx context.Context, c *pg.Conn) error {
	p.mu.Lock()
	pending := p.course.Chunks - p.course.ChunksDone
	p.mu.Unlock()
	if time.Since(p.counted) < countEvery && pending > countFew {
		return nil
	}
	all, pending, err := queue.Count(ctx, c)
	if err != nil {
		return err
	}
	p.counted = time.Now()
	p.mu.Lock()
	p.course.Chunks, p.course.ChunksDone = all, all-pending
	p.mu.Unlock()
	return nil
}

// done says how far the backfill is, for a line about a chunk.
func (p *progress) done() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d/%d", p.course.ChunksDone, p.course.Chunks)
}

// begin is called before each chunk.
func (p *progress) begin(t *task.Task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chunk, p.since = t.Target().String()+" "+t.Result().Place(), time.Now()
	p.expect, p.before = t.Bytes, p.r.Moved()
}

// end is called after each chunk.
func (p *progress) end(ctx context.Context, c *pg.Conn, t *task.Task, res *task.Result) {
	p.mu.Lock()
	p.chunk, p.expect = "", 0
	if res.Status == task.Loaded || res.Status == task.Gone {
		p.course.ChunksDone++
		p.course.BytesDone += t.Bytes
		p.chunks++
		p.bytes += res.Bytes
	}
	p.mu.Unlock()
	_ = p.count(ctx, c) // on an error the line shows the numbers of before
}

// over hides the live line and prints a summary instead.
func (p *progress) over() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	p.watch.Wait()
	shown := p.live.Shown()
	p.live.Show(false)
	if shown && p.chunks > 0 {
		took := time.Since(p.began).Seconds()
		p.Log.Info("%d loaded, %s in %.1fs, %s/s", p.chunks, cli.Bytes(p.bytes), took,
			cli.Bytes(int64(float64(p.bytes)/took)))
	}
}

// line is the live line.
func (p *progress) line() string {
	if p.Stop.Asked() {
		if what := p.waitingFor(); what != "" {
			return "waiting for " + what
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c, now := p.course, ""
	if p.chunk != "" {
		now = "; " + p.chunk
		if moved := p.moved(); p.expect > 0 {
			c.BytesDone += moved
			now += fmt.Sprintf(" %d%%", moved*100/p.expect)
		}
	}
	return c.Line(p.meter.Rate(float64(c.BytesDone))) + now
}

// moved is how much of the chunk in hand has arrived. COPY data may be longer than
// the table it came from: it stays below 100 % until the end.
func (p *progress) moved() int64 { return min(p.r.Moved()-p.before, p.expect*99/100) }

// waitingFor names the chunk in hand and what is left of it; "" for none.
func (p *progress) waitingFor() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.chunk == "" || p.expect == 0 {
		return p.chunk
	}
	moved := p.moved()
	s := fmt.Sprintf("%s: %d%%", p.chunk, moved*100/p.expect)
	if took := time.Since(p.since).Seconds(); moved > 0 && took > 0 {
		s += fmt.Sprintf(", about %s left", cli.Duration(float64(p.expect-moved)/float64(moved)*took))
	}
	return s
}
