package target

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Making a chunk locks the hypertable, and the tables that it references, against
// the application until commit. So it never shares a transaction with a COPY.

// mostGaps bounds how many chunks are made for one task. Only a target that
// cuts its chunks much smaller than the source gets there; the rest is made on
// the way.
const mostGaps = 200

// cutDifferently is why there is no chunk of the source's extent.
var cutDifferently = obstacle{what: "the target cuts chunks differently", loose: task.LooseExtents}

// chunkMaker makes the chunks of a task.
type chunkMaker struct{ *load }

// make makes the chunk with the task's extent, or, where the target cannot
// have such a chunk, those that rows of the task need. What could not be made is
// left as an obstacle: such chunks come to be during the COPY.
func (k chunkMaker) make(ctx context.Context) (err error) {
	k.made = true
	if k.image.Relation != nil {
		if made, err := k.create(ctx, k.task.Slices); made || err != nil {
			return err
		}
		k.unmade = cutDifferently
		return nil
	}
	d, whole := k.ht.Dimensions[0], k.task.Slices
	if k.Full && d.Natural(whole[0].From, whole[0].Until) && k.ht.Unaligned(whole) == "" {
		// The common case: nothing is in the way, and there is no need to look.
		if made, err := k.create(ctx, whole); made || err != nil {
			return err
		}
	}
	for _, extent := range k.ht.Extents(whole) {
		if k.unmade, err = k.fill(ctx, extent); err != nil {
			return err
		}
	}
	if k.unmade.none() {
		k.unmade = cutDifferently
	}
	k.unmade.loose = task.LooseExtents
	return nil
}

// fill makes chunks, each in a short transaction of its own, until there is one
// for every place in the extent. Mostly that is one chunk with just this extent.
func (k chunkMaker) fill(ctx context.Context, extent []task.Slice) (no obstacle, err error) {
	var last []task.Slice
	for range mostGaps {
		gap, err := tsdb.Gap(ctx, k.DB, k.ht, extent)
		if err != nil || gap == nil || slices.Equal(gap, last) {
			return no, err
		}
		last = gap
		if no, err = k.makeOne(ctx, gap); err != nil || !no.none() {
			return no, err
		}
	}
	return no, nil
}

// makeOne makes a chunk with these slices by TimescaleDB's function. Where
// that is refused (the Apache edition), fails or would do harm (unaligned), a
// row that goes through the hypertable makes one, of the extent that the target
// likes best.
func (k chunkMaker) makeOne(ctx context.Context, want []task.Slice) (no obstacle, err error) {
	if k.Full && k.ht.Unaligned(want) == "" {
		if made, err := k.create(ctx, want); made || err != nil {
			return no, err
		}
	}
	return k.routeRow(ctx, want)
}

// create makes a chunk by TimescaleDB's function, unless something is in
// the way.
func (k chunkMaker) create(ctx context.Context, want []task.Slice) (made bool, err error) {
	oid, err := k.brieflyRun(ctx, tsdb.CreateChunkSQL(k.DB, k.ht, want))
	if tsdb.ChunkInTheWay(err) {
		return false, nil
	}
	if err != nil {
		return false, k.Wrap(err, "create a chunk of %s", k.ht.Name)
	}
	k.madeOID = oid
	return true, nil
}

// createOwn makes the task's chunk within the transaction that is open. A
// misfit says that there can be none.
func (k chunkMaker) createOwn(ctx context.Context) error {
	_, _, err := k.ht.CreateChunk(ctx, k.DB, k.task.Slices)
	if tsdb.ChunkInTheWay(err) {
		return &misfit{obstacle: cutDifferently}
	}
	if err != nil {
		return err
	}
	if k.chunk, err = k.ht.ChunkOf(ctx, k.DB, k.task.Slices); err != nil {
		return err
	}
	if k.chunk == nil {
		return &misfit{obstacle: cutDifferently}
	}
	return nil
}

// routeRow makes a chunk by a row: the first one of the data, moved to where the
// chunk begins, goes through the root and is deleted again in the same short
// transaction; what stays is the chunk.
func (k chunkMaker) routeRow(ctx context.Context, want []task.Slice) (no obstacle, err error) {
	if err := k.lookAgain(ctx); err != nil {
		return no, err
	}
	if len(k.dep.OnInsert)+len(k.dep.OnDelete) > 0 {
		return obstacle{what: "row triggers on the target would fire for an extra row"}, nil
	}
	row, err := k.data.FirstRow(k.part.Format)
	if err != nil {
		return no, err
	}
	if row == nil {
		return obstacle{what: "no small first row to make the chunk with"}, nil
	}
	moved := make([]string, len(k.part.Columns))
	for i, c := range k.part.Columns {
		if moved[i] = pg.Ident(c.Name); c.Name == want[0].Column {
			at, err := tsdb.Beginning(k.ht, want[0])
			if err != nil {
				return no, err
			}
			moved[i] = cmp.Or(at, moved[i])
		}
	}
	err = k.briefly(ctx, func() error { return k.insertAndDelete(ctx, row, moved) })
	if strings.HasPrefix(pg.Code(err), "23") {
		// In conflict with a row that is going to be replaced. What violates a
		// constraint for good fails again later, with the row's own message.
		return obstacle{what: "the first row is in conflict with a row of the target"}, nil
	}
	return no, err
}

// insertAndDelete puts a row, a COPY of its own, into the hypertable, with these
// expressions for its columns, and takes it out again.
func (k chunkMaker) insertAndDelete(ctx context.Context, row []byte, expressions []string) error {
	columns := columnsOf(k.part)
	_, err := k.Exec(ctx, fmt.Sprintf("create temporary table first_row on commit drop as select %s from %s "+
		"with no data",
		columns, k.hypertable()))
	if err != nil {
		return err
	}
	_, err = k.CopyIn(ctx, bytes.NewReader(row), "copy pg_temp.first_row from stdin (format "+k.part.Format+")")
	if err != nil {
		return err
	}
	var oid uint32
	err = k.scanAsUser(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %s from pg_temp.first_row "+
		"returning tableoid", k.hypertable(), columns, strings.Join(expressions, ", ")), &oid)
	if err != nil {
		return err
	}
	chunk, err := k.RelationName(ctx, oid)
	if err != nil {
		return err
	}
	// Only our row: the chunk may have been there by now.
	return k.deleteFrom(ctx, "only "+chunk+" where xmin::text::bigint = txid_current() & 4294967295")
}
