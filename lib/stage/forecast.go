package stage

import (
	"context"
	_ "embed"
	"slices"
	"strings"

	"bf/lib/task"
	"bf/lib/tsdb"
)

//go:embed forecast.sql
var forecastSQL string

// Forecast is what a plan means for one of its hypertables.
type Forecast struct {
	Of         task.Name // as users know it
	Chunks     int
	Compressed int   // of the chunks
	Raw        int   // of those that travel as they are
	Rows       int64 // about, as the following
	Bytes      int64 // that travel
	Space      int64 // that the target will need, with indexes where the source knows
	Unknown    bool  // how much it is shows only when the command runs
	// Why compressed chunks do not travel as they are, and how many for each reason.
	NotRaw map[string]int
	// Of the target; nothing where there was none to look at.
	Present, PresentRows int64  // chunks that have rows in the staged range, and rows, about
	Lacks                string // rights
}

// Forecasts returns one per hypertable of the plan. After Fit they know how chunks
// will travel. dst may be nil.
func (p *Plan) Forecasts(ctx context.Context, dst *tsdb.DB) ([]*Forecast, error) {
	var all []*tsdb.Hypertable
	var err error
	if dst != nil {
		if all, err = dst.Hypertables(ctx); err != nil {
			return nil, err
		}
	}
	var fs []*Forecast
	for _, h := range p.Hypertables {
		f := p.forecast(h)
		if t := tsdb.Counterpart(all, h.Name, h.View); t != nil {
			if err := f.target(ctx, dst, t, p.Tasks); err != nil {
				return nil, err
			}
		}
		fs = append(fs, f)
	}
	return fs, nil
}

// forecast is what the source alone tells.
func (p *Plan) forecast(h *tsdb.Hypertable) *Forecast {
	f := &Forecast{Of: h.Label(), NotRaw: map[string]int{}}
	for _, t := range p.Tasks {
		if t.Hypertable != h.Name {
			continue
		}
		f.Unknown = t.Kind == task.KindExec
		c, compressed := p.Compressed[t.Chunk]
		// The planner knows of a compressed chunk's uncompressed rows only.
		f.Chunks, f.Rows, f.Bytes = f.Chunks+1, f.Rows+max(t.Rows, c.Rows), f.Bytes+t.Bytes
		if !compressed {
			f.Space += t.Bytes
			continue
		}
		f.Compressed++
		f.Space += max(c.Compressed, t.Bytes)
		switch {
		case t.RowsOnly != "":
			f.NotRaw[t.RowsOnly]++
		case c.ByRows:
			f.NotRaw["its batches are unordered"]++
		case t.Range.Partial:
			f.NotRaw[task.LooseRange.Says()]++
		default:
			f.Raw++
		}
	}
	for _, l := range p.Loose {
		if l.Of == f.Of && !l.Maybe {
			f.Space += max(l.Uncompressed-l.Compressed, 0)
		}
	}
	return f
}

// target adds what is on the target: hypertable t there.
func (f *Forecast) target(ctx context.Context, dst *tsdb.DB, t *tsdb.Hypertable, tasks []*task.Task) error {
	if err := dst.QueryRow(ctx, forecastSQL, t.OID).Scan(&f.Lacks); err != nil {
		return dst.Wrap(err, "privileges on %s", t.Label())
	}
	chunks, err := dst.Chunks(ctx, t.ID)
	if err != nil {
		return err
	}
	var ids []int32
	for _, c := range chunks {
		ids = append(ids, c.ID)
	}
	sizes, err := tsdb.ChunkSizes(ctx, dst, ids)
	if err != nil {
		return err
	}
	var staged [][2]int64
	for _, tk := range tasks {
		if tk.Target() == f.Of {
			r := task.Slice{From: tk.Range.From, Until: tk.Range.Until}
			from, until := r.Bounds()
			staged = append(staged, [2]int64{from, until})
		}
	}
	for _, c := range chunks {
		from, until := c.Slices[0].Bounds()
		if (c.Rows > 0 || c.Bytes > 0) && slices.ContainsFunc(staged, func(r [2]int64) bool {
			return from < r[1] && until > r[0]
		}) {
			f.Present++
			f.PresentRows += max(c.Rows, sizes[c.ID].Rows)
		}
	}
	return nil
}

// How says how the chunks will travel.
func (f *Forecast) How() string {
	var how []string
	if f.Raw > 0 {
		how = append(how, "batches as they are")
	}
	if f.Chunks > f.Raw {
		how = append(how, "rows")
	}
	return strings.Join(how, ", ")
}
