package verify

import (
	"fmt"
	"io"
	"sync"
	"time"

	"bf/lib/cli"
	"bf/lib/task"
)

// tally is what a run has printed and counted so far.
type tally struct {
	mu                    sync.Mutex
	out                   io.Writer
	course                cli.Progress // Chunks is 0 where it is not known
	meter                 cli.Meter
	equal, differ, failed int64 // tasks
	equalByValue          int64 // of those that differ
	summaries             int64 // written
	rows                  int64 // compared
}

// fail counts a task that could not be compared.
func (t *tally) fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
}

func (t *tally) status(err error) int {
	switch {
	case t.differ > 0:
		return cli.Differs
	case t.failed > 0 || err != nil:
		return cli.Failed
	}
	return cli.OK
}

// line is the live line.
func (t *tally) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := fmt.Sprintf("%d chunks", t.course.ChunksDone)
	if t.course.Chunks > 0 {
		s = t.course.Line(t.meter.Rate(float64(t.course.BytesDone)))
	}
	if t.differ > 0 {
		s += fmt.Sprintf("; %d differ", t.differ)
	}
	if t.failed > 0 {
		s += fmt.Sprintf("; %d failed", t.failed)
	}
	return s
}

// place is that of a finished task among all, where their number is known.
func (t *tally) place() string {
	if t.course.Chunks <= 1 {
		return ""
	}
	return fmt.Sprintf("%d/%d ", t.course.ChunksDone, t.course.Chunks)
}

// writeEnd vouches for the summaries.
func (t *tally) writeEnd(stopped bool) error {
	end := End{V: task.Version, Kind: KindEnd, Summaries: t.summaries, Failed: t.failed, Stopped: stopped}
	if err := task.Write(t.out, end); err != nil {
		return fmt.Errorf("write the end of the summaries: %w", err)
	}
	return nil
}

// reportSummary prints a summary; an error means that nobody reads them.
func (r *runner) reportSummary(s *Summary) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := task.Write(r.out, s); err != nil {
		r.log.Error(fmt.Errorf("write the summary: %w", err))
		r.failed++
		return err
	}
	r.course.ChunksDone++
	r.summaries++
	if s.State == StateGone {
		r.log.Info("%s%s: gone", r.place(), &s.Task)
	} else {
		r.log.Detail("%s%s: %d rows in %.2fs", r.place(), &s.Task, s.Rows, s.Seconds)
	}
	return nil
}

// report prints the result record of a task and a line for people.
func (r *runner) report(j *job, res *task.Result, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.course.ChunksDone++
	r.course.BytesDone += j.bytes
	if res != nil {
		r.rows += res.Rows
		if werr := task.Write(r.out, res); werr != nil {
			r.log.Error(fmt.Errorf("write the result record: %w", werr))
			r.failed++
		}
	}
	if err != nil {
		r.failed++
		if r.stop.Context.Err() == nil {
			r.log.Error(err)
		}
		return
	}
	say := r.log.Info
	switch {
	case len(res.Differences) > 0:
		r.differ++
		if res.EqualByValue {
			r.equalByValue++
		}
		say = r.log.Warn
	case res.Status == task.Verified:
		r.equal++
		if r.live.Shown() {
			say = r.log.Detail
		}
	}
	say("%s%s %s: %s in %.2fs", r.place(), res.Hypertable, res.Place(), res.Message, res.Seconds)
	if len(res.Differences) > 1 {
		for _, d := range res.Differences {
			say("  %s: %s", res.Place(), d)
		}
	}
}

// over ends the run with a line that sums it up, unless there was one task only.
func (r *runner) over(began time.Time) {
	r.live.Show(false)
	if r.equalByValue > 0 {
		r.log.Warn("%d chunks differ only in values that = calls equal (1.0 and 1.00, 1 mon and 30 days): "+
			"a compressed chunk may keep one of them for all. --method values accepts that; "+
			"to have the values as they are, "+
			"decompress the chunk on the target, keep policies from compressing it, "+
			"and load it again (bf-load --force)",
			r.equalByValue)
	}
	if n := r.course.ChunksDone; n == 0 && r.failed == 0 && !r.stop.Asked() {
		r.log.Info("nothing to verify")
	} else if n > 1 && r.Mode != Summarize {
		r.log.Info("%d chunks, %d rows in %.1fs: %d equal, %d different, %d failed",
			n, r.rows, time.Since(began).Seconds(), r.equal, r.differ, r.failed)
	}
}
