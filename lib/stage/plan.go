package stage

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"bf/lib/task"
	"bf/lib/tsdb"
)

// A plan travels as NDJSON when the two halves of staging run on two machines:
// a line per hypertable and per continuous aggregate (kinds "hypertable" and
// "aggregate"), then a task record per chunk, after a line of kind "compressed" where
// it is.
type hypertableLine struct {
	V          int              `json:"v"`
	Kind       string           `json:"kind"`
	Source     Server           `json:"source"`
	Hypertable *tsdb.Hypertable `json:"hypertable"`
}

type aggregateLine struct {
	V    int    `json:"v"`
	Kind string `json:"kind"`
	Aggregate
}

// compressedLine goes before the task of a compressed chunk.
type compressedLine struct {
	V     int       `json:"v"`
	Kind  string    `json:"kind"`
	Chunk task.Name `json:"chunk"`
	Compressed
}

const (
	kindCompressed = "compressed"
	kindHypertable = "hypertable"
	kindAggregate  = "aggregate"
)

var kinds = []string{kindCompressed, kindHypertable, kindAggregate}

// maxPlanLine bounds a line of a plan: a hypertable of 1600 columns takes some
// hundred kilobytes.
const maxPlanLine = 4 << 20

// Write writes the plan.
func (p *Plan) Write(w io.Writer) error {
	for _, h := range p.Hypertables {
		if err := task.Write(w, hypertableLine{task.Version, kindHypertable, p.Source, h}); err != nil {
			return err
		}
	}
	for _, a := range p.Aggregates {
		if err := task.Write(w, aggregateLine{task.Version, kindAggregate, a}); err != nil {
			return err
		}
	}
	for _, t := range p.Tasks {
		if c, ok := p.Compressed[t.Chunk]; ok {
			if err := task.Write(w, compressedLine{task.Version, kindCompressed, t.Chunk, c}); err != nil {
				return err
			}
		}
		if err := task.Write(w, t); err != nil {
			return err
		}
	}
	return nil
}

// Read reads a plan that Write wrote.
func Read(r io.Reader) (*Plan, error) {
	p := &Plan{Compressed: map[task.Name]Compressed{}}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxPlanLine)
	known := map[task.Name]bool{}
	// Chunks of two databases have the same names.
	same := func(origin string) error {
		if p.Source.Origin == "" {
			p.Source.Origin = origin
		}
		if origin != "" && origin != p.Source.Origin {
			return errors.New("not a plan: two plans of different source databases")
		}
		return nil
	}
	for line := 1; s.Scan(); line++ {
		b := bytes.TrimSpace(s.Bytes())
		if len(b) == 0 {
			continue
		}
		var kind struct {
			V    int    `json:"v"`
			Kind string `json:"kind"`
		}
		if b[0] == '{' && json.Unmarshal(b, &kind) == nil && slices.Contains(kinds, kind.Kind) {
			if kind.V != task.Version {
				return nil, &task.BadRecord{Line: line, Err: fmt.Errorf("plan version %d: this bf reads version %d", kind.V, task.Version)}
			}
			if kind.Kind == kindCompressed {
				var c compressedLine
				if err := json.Unmarshal(b, &c); err != nil {
					return nil, &task.BadRecord{Line: line, Err: fmt.Errorf("not a plan: %w", err)}
				}
				p.Compressed[c.Chunk] = c.Compressed
				continue
			}
			if kind.Kind == kindAggregate {
				var a aggregateLine
				if err := json.Unmarshal(b, &a); err != nil || a.View.IsZero() {
					return nil, &task.BadRecord{Line: line, Err: errors.New("not a plan: aggregate without view or watermark")}
				}
				p.Aggregates = append(p.Aggregates, a.Aggregate)
				continue
			}
			var h hypertableLine
			if err := json.Unmarshal(b, &h); err != nil {
				return nil, &task.BadRecord{Line: line, Err: fmt.Errorf("not a plan: %w", err)}
			}
			if h.Hypertable == nil || len(h.Hypertable.Dimensions) == 0 {
				return nil, &task.BadRecord{Line: line, Err: errors.New("not a plan: hypertable without dimensions")}
			}
			if err := same(h.Source.Origin); err != nil {
				return nil, &task.BadRecord{Line: line, Err: err}
			}
			h.Source.Origin = p.Source.Origin
			p.Source = h.Source
			p.Hypertables = append(p.Hypertables, h.Hypertable)
			known[h.Hypertable.Name] = true
			continue
		}
		t, err := task.Parse(b)
		if err != nil {
			return nil, &task.BadRecord{Line: line, Err: err}
		}
		if err := same(t.Origin); err != nil {
			return nil, &task.BadRecord{Line: line, Err: err}
		}
		if !known[t.Hypertable] {
			return nil, &task.BadRecord{Line: line, Err: fmt.Errorf("not a plan of bf-stage: nothing is said of hypertable %s", t.Hypertable)}
		}
		p.Tasks = append(p.Tasks, t)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(p.Hypertables) == 0 {
		return nil, errors.New("no plan on stdin: pipe bf-stage --source … into it, or give --source")
	}
	return p, nil
}
