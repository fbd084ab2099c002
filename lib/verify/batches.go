package verify

import (
	"context"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/tsdb"
)

// compressedRelation is that of a side's chunk, whose batches say all about the
// rows in them.
type compressedRelation struct {
	*tsdb.Relation
	columns []tsdb.RelationColumn // in name order, without those that another version may leave out
}

// compareBatches compares two compressed chunks by the hashes of their batches
// and of the uncompressed rows beside them, which takes a twentieth of the time
// of hashing all rows. It reports false when that proves nothing: other batches
// may hold the same rows (compressed again), and equal batches other rows (under
// other settings).
func (p *Pair) compareBatches(ctx context.Context, from, to *side) (a, b *Summary, proven bool, err error) {
	x, y := from.compressedChunk, to.compressedChunk
	if x == nil || y == nil || x.Status&^tsdb.StatusFrozen != y.Status&^tsdb.StatusFrozen {
		return nil, nil, false, nil
	}
	ra, rb, err := both(ctx, from, to, func(ctx context.Context, s *side) (*compressedRelation, error) {
		return s.compressedRelation(ctx)
	})
	if err != nil || ra == nil || rb == nil || !ra.sameAs(rb) {
		return nil, nil, false, err
	}
	a, b, err = both(ctx, from, to, func(ctx context.Context, s *side) (*Summary, error) {
		if s == from {
			return s.hashBatches(ctx, ra)
		}
		return s.hashBatches(ctx, rb)
	})
	if err != nil {
		return nil, nil, false, err
	}
	return a, b, a.Rows == b.Rows && a.Hash == b.Hash, nil
}

// sameAs reports whether equal batches of the two relations hold equal rows.
func (r *compressedRelation) sameAs(o *compressedRelation) bool {
	_, same := tsdb.SameColumns(r.columns, o.columns)
	return same && r.Settings.SameLayout(&o.Settings) && r.Encoding == o.Encoding
}

// compressedRelation returns that of the side's compressed chunk. It is nil if
// its batches do not say all about its rows: where NULL stands for the default
// of a column added later, or settings and columns disagree.
func (s *side) compressedRelation(ctx context.Context) (*compressedRelation, error) {
	c := s.compressedChunk
	r, unfit, err := c.Relation(ctx, s.db, s.h)
	if err != nil || unfit != "" {
		return nil, err
	}
	if slices.ContainsFunc(r.Added, func(m string) bool { return slices.Contains(r.Nulls, m) }) {
		return nil, nil
	}
	if s.db.ListsSparseIndexes() {
		stale := map[string]bool{}
		for _, col := range r.Columns {
			stale[col.Name] = col.Stale()
		}
		sparse, err := r.Settings.Sparse(false)
		if err != nil || s.db.Side == pg.Target && !tsdb.SameSparse(sparse, r.Sparse(stale)) {
			return nil, nil
		}
	}
	cols := slices.DeleteFunc(slices.Clone(r.Columns), func(c tsdb.RelationColumn) bool { return c.Droppable() })
	slices.SortFunc(cols, func(a, b tsdb.RelationColumn) int { return strings.Compare(a.Name, b.Name) })
	return &compressedRelation{Relation: r, columns: cols}, nil
}

// hashBatches hashes the batches and the uncompressed rows beside them. All but
// compressed data is hashed by its text: an enum's hash is that of its OID.
func (s *side) hashBatches(ctx context.Context, r *compressedRelation) (*Summary, error) {
	var exprs []string
	for _, c := range r.columns {
		column := r.NumberOf(c.Name) // the server does not take all names it has made
		e := column + `::text collate "C"`
		if c.Type == tsdb.CompressedData {
			// ≤ 2.18: a batch in which the column is NULL has NULL; later, one byte.
			e = "nullif(" + tsdb.Sent(column) + `, '\x06')`
		}
		exprs = append(exprs, e)
	}
	var batches string
	if err := s.db.QueryRow(ctx, "select "+s.sumOf(exprs)+" from "+r.Numbered(r.Quoted)).Scan(&batches); err != nil {
		return nil, s.db.Wrap(err, "compare %s", r.Quoted)
	}
	uncompressed := *s
	uncompressed.rows = "only " + s.rows
	if s.compressedChunk.Hides() { // what no query shows is not compared
		uncompressed.rows += " where false"
	}
	sum, err := uncompressed.summarize(ctx, s.columns(s.h.Copied()), want{hash: true})
	if err != nil {
		return nil, err
	}
	sum.Rows += r.Rows
	sum.Hash = batches + "/" + sum.Hash
	return sum, nil
}
