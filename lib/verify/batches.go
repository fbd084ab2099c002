package verify

import (
	"context"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/tsdb"
)

// squeezed is a side whose chunk is compressed, as far as it is understood.
type squeezed struct {
	r       *tsdb.Relation
	name    string // of the compressed relation
	trusted bool   // its batches say all about its rows
}

// batches compares two compressed chunks by hashing their compressed relations
// as they are, which takes a twentieth of the time of hashing their rows, and
// the rows beside them. It reports false when that proves nothing: batches can
// differ and hold the same rows (compressed again), and equal batches mean
// different rows where the chunks or their settings differ.
func (p *Pair) batches(ctx context.Context, from, to *side) (a, b *Summary, proven bool, err error) {
	if from.compressed == nil || to.compressed == nil || from.compressed.Status&^tsdb.StatusFrozen != to.compressed.Status&^tsdb.StatusFrozen {
		return nil, nil, false, nil
	}
	x, y, err := both(ctx, from, to, func(ctx context.Context, s *side) (squeezed, error) { return s.squeezed(ctx) })
	if err != nil || !x.trusted || !y.trusted || !x.r.Settings.SameLayout(&y.r.Settings) || x.r.Encoding != y.r.Encoding {
		return nil, nil, false, err
	}
	if _, same := tsdb.SameColumns(exact(x.r), exact(y.r)); !same {
		return nil, nil, false, nil
	}
	a, b, err = both(ctx, from, to, func(ctx context.Context, s *side) (*Summary, error) {
		if s == from {
			return s.hashBatches(ctx, x)
		}
		return s.hashBatches(ctx, y)
	})
	if err != nil {
		return nil, nil, false, err
	}
	return a, b, a.Rows == b.Rows && a.Hash == b.Hash, nil
}

// exact are the columns of a compressed relation in name order, without those
// that another version may leave out.
func exact(r *tsdb.Relation) []tsdb.RelationColumn {
	cols := slices.DeleteFunc(slices.Clone(r.Columns), func(c tsdb.RelationColumn) bool { return c.Droppable() })
	slices.SortFunc(cols, func(a, b tsdb.RelationColumn) int { return strings.Compare(a.Name, b.Name) })
	return cols
}

// squeezed looks at the side's compressed chunk. Its batches are not trusted
// where SQL NULL stands for the default of a column added later, or where
// settings and columns disagree.
func (s *side) squeezed(ctx context.Context) (q squeezed, err error) {
	c := s.compressed
	var why string
	if q.r, why, err = s.db.Relation(ctx, c, s.h); err != nil || why != "" {
		return q, err
	}
	missing, err := s.db.Missing(ctx, c.OID)
	if err != nil || slices.ContainsFunc(missing, func(m string) bool { return slices.Contains(q.r.Nulls, m) }) {
		return q, err
	}
	if s.db.ListsSparseIndexes() {
		stale := map[string]bool{}
		for _, col := range q.r.Columns {
			stale[col.Name] = col.Stale()
		}
		if sparse, err := q.r.Settings.Sparse(false); err != nil || s.db.Side == pg.Target && !tsdb.SameSparse(sparse, q.r.Sparse(stale)) {
			return q, nil
		}
	}
	q.name, err = s.db.RelationName(ctx, c.RelationOID)
	q.trusted = true
	return q, err
}

// hashBatches sums the hashes of the batches and of the rows beside them. All
// but compressed data is hashed by its text: an enum's hash is that of its OID.
func (s *side) hashBatches(ctx context.Context, q squeezed) (*Summary, error) {
	var exprs []string
	for _, c := range exact(q.r) {
		column := q.r.NumberOf(c.Name) // names may be such as the server does not take
		e := column + `::text collate "C"`
		if c.Type == tsdb.CompressedData {
			// A batch without values: SQL NULL up to 2.18, then one byte.
			e = "nullif(" + tsdb.Sent(column) + `, '\x06')`
		}
		exprs = append(exprs, e)
	}
	var batches string
	if err := s.db.QueryRow(ctx, "select "+sumOf(exprs)+" from "+q.r.Numbered(q.name)).Scan(&batches); err != nil {
		return nil, s.db.Wrap(err, "compare %s", q.name)
	}
	beside := *s
	beside.rows = "only " + s.rows
	if s.compressed.Hides() { // what no query shows is not compared
		beside.rows += " where false"
	}
	sum, err := beside.summarize(ctx, s.columns(s.h.Copied()), want{hash: true})
	if err != nil {
		return nil, err
	}
	sum.Rows += q.r.Rows
	sum.Hash = batches + "/" + sum.Hash
	return sum, nil
}
