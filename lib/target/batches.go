package target

import (
	"context"
	"fmt"
	"io"
	"strings"

	"bf/lib/pg"
)

// batchesInto replaces the chunk by the compressed relation of the stream and the
// rows beside its batches.
type batchesInto struct {
	*load
	existing bool // into the relation that the chunk has

	many bool        // see exceedsLockBudget
	rows *parkedRows // nil: they are in the chunk
}

// copy fills a relation that no other session sees, unless the chunk's own is filled.
// Where the chunk has to be locked against the application to empty it (it is
// compressed, has many rows or is aggregated), the few rows beside the batches go to
// a temporary table before.
func (w *batchesInto) copy(ctx context.Context) (err error) {
	r := w.relation
	if w.existing {
		if err := r.takeExisting(ctx); err != nil {
			return err
		}
		if err := w.copyBatches(ctx); err != nil {
			return err
		}
		return w.copyBeside(ctx, w.hypertable()) // which marks the chunk as partial
	}
	if err := r.Built.Build(ctx, w.DB, w.ht, w.chunk); err != nil {
		return err
	}
	if err := w.copyBatches(ctx, "freeze"); err != nil {
		return err
	}
	if err := r.Ready(ctx, w.DB); err != nil {
		return err
	}
	if err := w.lookAgain(ctx); err != nil { // an aggregate may be new
		return err
	}
	if w.many, err = w.exceedsLockBudget(ctx, w.chunk); err != nil {
		return err
	}
	if w.dep.Aggregated || w.many || w.chunk.IsCompressed() {
		w.rows, err = park(ctx, w.load, w.chunk.Quoted())
		return err
	}
	if err := w.empty(ctx); err != nil {
		return err
	}
	return w.copyBeside(ctx, w.beside())
}

// copyBeside copies the rows beside the batches; mostly there are none.
func (w *batchesInto) copyBeside(ctx context.Context, relation string) error {
	none, err := w.data.Empty(w.part.Format)
	if err == nil && none {
		if _, err = io.Copy(io.Discard, w.data); err != nil {
			return err
		}
		sent, bytes := w.reader.Part()
		w.result.Bytes += bytes
		return allStored(relation, 0, sent)
	}
	if err == nil {
		_, err = w.copyRows(ctx, relation)
	}
	return err
}

// empty makes room for rows beside the batches in a chunk of few rows.
func (w *batchesInto) empty(ctx context.Context) error {
	return emptier{w.load}.forBatches(ctx, false)
}

func (w *batchesInto) finish(ctx context.Context) error {
	if w.existing {
		return invalidation{w.load}.ofChunk(ctx)
	}
	if w.rows == nil {
		return w.relation.attachAtLast(ctx)
	}
	insert := func() error { return w.rows.insertInto(ctx, w.beside()) }
	if w.rows.n <= maxRowsUnderLock {
		return w.relation.replaceChunk(ctx, w.dep.Aggregated || w.many, insert)
	}
	span, err := w.spanToInvalidate(ctx)
	if err != nil {
		return err
	}
	if err := w.empty(ctx); err != nil {
		return err
	}
	if err := insert(); err != nil {
		return err
	}
	if err := w.relation.attachAtLast(ctx); err != nil {
		return err
	}
	return invalidation{w.load}.of(ctx, span)
}

// spanToInvalidate is for many rows beside the batches: with TRUNCATE the chunk would
// be locked for as long as it takes to put them there. It returns the span of the
// batches, by which the aggregates learn of them instead.
func (w *batchesInto) spanToInvalidate(ctx context.Context) (span []string, err error) {
	if !w.chunk.IsCompressed() && !w.many {
		if span, err = (invalidation{w.load}).spanOfBatches(ctx, w.relation); err != nil {
			return nil, err
		}
	}
	if span == nil || !(invalidation{w.load}).obstacle().none() {
		return nil, byRows(w.task, fmt.Sprintf("the target's chunk would be locked for as long as it takes to "+
			"insert %d rows beside the batches", w.rows.n))
	}
	return span, invalidation{w.load}.keepEnds(ctx)
}

// copyBatches copies the compressed relation of the stream, checks what the batches
// refer to, and goes on to the next part; more are further options of COPY.
func (w *batchesInto) copyBatches(ctx context.Context, more ...string) error {
	r := w.relation
	var data io.Reader = w.data
	if r.drop != nil {
		data = pg.DropFields(data, r.drop)
	}
	options := strings.Join(append([]string{"format " + r.format}, more...), ", ")
	stored, err := w.CopyIn(ctx, data, fmt.Sprintf("copy %s (%s) from stdin (%s)", r.Name, r.Arriving(), options))
	if err != nil {
		return w.Wrap(err, "copy into %s", r.Name)
	}
	sent, bytes := w.reader.Part()
	if r.Batches = stored; stored != sent {
		return fault(r.Name, "", "stored %d of %d batches", stored, sent)
	}
	w.result.Rows += r.Rows
	w.result.Bytes += bytes
	if err := w.nextPart(); err != nil {
		return err
	}
	return r.keys.check(ctx, w.session, w.chunk, r.Name)
}
