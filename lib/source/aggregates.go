package source

import (
	"context"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// aggregates describes the continuous aggregates on the chunk's hypertable, and those on
// them, to the target, which has them computed again where they hold something else: so it is
// no error where that cannot be found out. What it locks is given back at once: the
// COPY may take long.
func (d *Dumper) aggregates(ctx context.Context, in *Opened, t *task.Task, img *tsdb.Image) error {
	all, err := tsdb.Descendants(ctx, d.db, in.Hypertable)
	if err != nil || len(all) == 0 {
		return err
	}
	if _, err := d.db.Exec(ctx, "savepoint bf; set local lock_timeout = 100"); err != nil {
		return err
	}
	as, around, err := in.images(ctx, d.db, t, all)
	if err != nil && (pg.Code(err) == "" || d.db.Lost()) {
		return err
	}
	if err == nil {
		img.Aggregates, img.Around = as, around
	}
	_, err = d.db.Exec(ctx, "rollback to bf; release bf")
	return err
}

// images returns the aggregates, and the other chunks of the hypertable that their
// buckets of the task's range are computed from.
func (in *Opened) images(ctx context.Context, db *tsdb.DB, t *task.Task, all []*tsdb.Descendant) (
	images []tsdb.AggregateImage, around []tsdb.ChunkImage, err error,
) {
	from, until := t.Range.Bounds()
	if from == task.MinBound || until == task.MaxBound {
		return nil, nil, nil
	}
	wide := tsdb.Span{From: from, Until: until}
	for _, a := range all {
		if !a.Comparable() { // then the target has all of it computed again
			return nil, nil, nil
		}
	}
	covers, err := tsdb.Covers(ctx, db, all, wide)
	if err != nil {
		return nil, nil, err
	}
	for i, a := range all {
		s := covers[i]
		img, err := a.Image(ctx, db, s)
		if err != nil {
			return nil, nil, err
		}
		images = append(images, img)
		wide.From, wide.Until = min(wide.From, s.From), max(wide.Until, s.Until)
	}
	r := task.NewRange(in.Hypertable.Dimensions[0].Column, wide.From, wide.Until)
	chunks, err := in.Hypertable.ChunksIn(ctx, db, r)
	for _, c := range chunks {
		if c.Name != t.Chunk {
			a := tsdb.ChunkImage{Chunk: c.Name}
			a.From, a.Until = c.Slices[0].Bounds()
			around = append(around, a)
		}
	}
	return images, around, err
}
