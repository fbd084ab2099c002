package stage

import (
	"context"

	"bf/lib/task"
	"bf/lib/tsdb"
)

// Exchanged reports whether source and target seem to be exchanged: nothing of what
// is planned has rows, and the target has rows before until. A copy would delete
// them. until is "" where it is not known; then all rows of the target count.
func Exchanged(ctx context.Context, dst *tsdb.DB, p *Plan, until string) (bool, error) {
	for _, t := range p.Tasks {
		if t.Bytes > 0 || t.Kind != task.KindChunk { // a slice may not know its size
			return false, nil
		}
	}
	all, err := dst.Hypertables(ctx)
	if err != nil {
		return false, err
	}
	for _, h := range p.Hypertables {
		t := tsdb.Counterpart(all, h.Name, h.View)
		if t == nil {
			continue
		}
		bound := int64(task.MaxBound)
		if until != "" {
			if bound, err = t.Internal(ctx, dst, until); err != nil {
				return false, err
			}
		}
		chunks, err := dst.Chunks(ctx, t.ID)
		if err != nil {
			return false, err
		}
		for _, c := range chunks {
			if from, _ := c.Slices[0].Bounds(); from < bound && c.Bytes > 0 {
				return true, nil
			}
		}
	}
	return false, nil
}
