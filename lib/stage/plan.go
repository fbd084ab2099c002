package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"bf/lib/task"
)

// Write writes the plan, see wire.go.
func (p *Plan) Write(w io.Writer) error {
	if err := task.Write(w, planLine{task.Version, kindPlan, p.Source, p.Again}); err != nil {
		return err
	}
	for _, h := range p.Hypertables {
		if err := task.Write(w, toLine(h)); err != nil {
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

// Read reads a plan that Write wrote, or several of one source, one after the
// other.
func Read(r io.Reader) (*Plan, error) {
	lines := task.NewReader(r)
	pr := &planReader{plan: &Plan{Compressed: map[task.Name]Compressed{}}, known: map[task.Name]bool{}}
	for {
		b, err := lines.Record()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := pr.line(b); err != nil {
			return nil, lines.Bad(err)
		}
	}
	if !pr.begun {
		return nil, errors.New("no plan on stdin: pipe bf-stage --source … into it, or give --source")
	}
	return pr.plan, nil
}

// planReader puts a plan together, line by line.
type planReader struct {
	plan  *Plan
	begun bool
	known map[task.Name]bool // hypertables
}

func (r *planReader) line(b []byte) error {
	var head struct {
		V    int    `json:"v"`
		Kind string `json:"kind"`
	}
	if b[0] != '{' || json.Unmarshal(b, &head) != nil || head.Kind == "" {
		return r.task(b)
	}
	if head.V != task.Version {
		return fmt.Errorf("plan version %d: this bf reads version %d", head.V, task.Version)
	}
	read := map[string]func([]byte) error{
		kindPlan: r.source, kindHypertable: r.hypertable, kindAggregate: r.aggregate, kindCompressed: r.compressed,
	}[head.Kind]
	if head.Kind == kindResult {
		return nil
	}
	if read == nil {
		return r.task(b)
	}
	if !r.begun && head.Kind != kindPlan {
		return errors.New("not a plan: it does not describe its source")
	}
	return read(b)
}

// source reads the first line. Chunks of two databases have the same names, so
// all of a plan must be of one.
func (r *planReader) source(b []byte) error {
	var l planLine
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("not a plan: %w", err)
	}
	if r.begun && l.Again != r.plan.Again {
		return errors.New("a plan of bf-verify and one of bf-stage: record one after the other")
	}
	if r.begun && l.Source.Origin != r.plan.Source.Origin {
		return errTwoSources
	}
	r.begun, r.plan.Source, r.plan.Again = true, l.Source, l.Again
	return nil
}

var errTwoSources = errors.New("not a plan: two plans of different source databases")

func (r *planReader) hypertable(b []byte) error {
	var l hypertableLine
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("not a plan: %w", err)
	}
	if l.Name.IsZero() || len(l.Dimensions) == 0 {
		return errors.New("not a plan: hypertable without name or dimensions")
	}
	r.plan.Hypertables = append(r.plan.Hypertables, l.hypertable())
	r.known[l.Name] = true
	return nil
}

func (r *planReader) aggregate(b []byte) error {
	var l aggregateLine
	if err := json.Unmarshal(b, &l); err != nil || l.View.IsZero() {
		return errors.New("not a plan: aggregate without view or watermark")
	}
	r.plan.Aggregates = append(r.plan.Aggregates, l.Aggregate)
	return nil
}

func (r *planReader) compressed(b []byte) error {
	var l compressedLine
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("not a plan: %w", err)
	}
	r.plan.Compressed[l.Chunk] = l.Compressed
	return nil
}

func (r *planReader) task(b []byte) error {
	t, err := task.Parse(b)
	switch {
	case err != nil:
		return err
	case !r.begun || !r.known[t.Hypertable]:
		return fmt.Errorf("not a plan of bf-stage: it does not describe hypertable %s", t.Hypertable)
	case t.Origin != "" && t.Origin != r.plan.Source.Origin:
		return errTwoSources
	}
	r.plan.Tasks = append(r.plan.Tasks, t)
	return nil
}
