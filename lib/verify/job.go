package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
)

// job is one chunk to compare: the number of a staged task, or a record that was
// given; of the half that judges, with the source's summary.
type job struct {
	number  int64
	task    *task.Task
	summary *Summary
	slice   *piece // InStretch, instead of all the others
	bytes   int64  // about what is to be read; not known of a record
}

// staged returns the task as it is on the target now.
func (j *job) staged(ctx context.Context, target *pg.Conn) (*queue.Entry, error) {
	if j.task != nil {
		return queue.Staged(ctx, target, j.task)
	}
	e, err := queue.Get(ctx, target, j.number)
	if err == nil && e == nil {
		err = &pg.Error{Side: pg.Target, Object: fmt.Sprintf("task %d", j.number),
			Err: errors.New("is no longer staged")}
	}
	return e, err
}

// summaries reads what bf-verify --source has printed: summaries, and the record
// that ends them. There may be several such outputs, put together.
type summaries struct {
	*task.Reader
	piped bool // they come on stdin, and have to end properly
	read  int64
	ends  []End
}

// next returns the next summary, and io.EOF after the last if it is.
func (s *summaries) next() (*job, error) {
	for {
		b, err := s.Record()
		if err == io.EOF && s.piped {
			return nil, s.end()
		}
		if err != nil {
			return nil, readError(err)
		}
		var sum Summary
		if err := json.Unmarshal(b, &sum); err != nil {
			return nil, s.Bad(fmt.Errorf("not a summary of bf-verify --source: %w", err))
		}
		if sum.Kind != KindEnd || sum.V != task.Version {
			return s.job(&sum)
		}
		var e End
		if err := json.Unmarshal(b, &e); err != nil {
			return nil, s.Bad(err)
		}
		s.ends = append(s.ends, e)
	}
}

func (s *summaries) job(sum *Summary) (*job, error) {
	s.read++
	err := sum.Check()
	var other *HashError
	if errors.As(err, &other) {
		return nil, err // and so it would be of those that follow
	}
	if err != nil {
		return nil, s.Bad(err)
	}
	return &job{task: &sum.Task, summary: sum}, nil
}

// end returns io.EOF if all summaries have come that were made, and there is one
// of each task.
func (s *summaries) end() error {
	var all End
	for _, e := range s.ends {
		all.Summaries += e.Summaries
		all.Failed += e.Failed
		all.Stopped = all.Stopped || e.Stopped
	}
	switch {
	case s.read == 0 && len(s.ends) == 0:
		return errors.New("no summaries on stdin, and no end of them: bf-verify --source did not run, or failed")
	case all.Summaries != s.read:
		return fmt.Errorf("the summaries are not whole: %d came, and bf-verify --source vouches for %d; "+
			"it died, or lines were lost or repeated", s.read, all.Summaries)
	case all.Failed > 0:
		return fmt.Errorf("bf-verify --source could not summarize %d tasks", all.Failed)
	case all.Stopped:
		return errors.New("bf-verify --source was stopped before its last task")
	}
	return io.EOF
}
