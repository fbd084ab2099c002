package source

import (
	"context"
	"fmt"
	"slices"

	"bf/lib/task"
	"bf/lib/tsdb"
)

// image describes the state of the chunk to the target. It has a compressed
// relation if that may travel as it is, as far as the source can tell.
func (d *Dumper) image(ctx context.Context, c *tsdb.Chunk, h *tsdb.Hypertable, t *task.Task) (*tsdb.Image, error) {
	img := &tsdb.Image{Compressed: c.Status&tsdb.StatusCompressed != 0, Frozen: c.Status&tsdb.StatusFrozen != 0}
	if !img.Compressed {
		return img, nil
	}
	if c.RelationOID == 0 {
		return nil, rewritten(t)
	}
	var err error
	if img.Hidden, err = d.hidden(ctx, c, h, t); err != nil {
		return nil, err
	}
	if img.WhyRows = whyRows(c, t); img.WhyRows != "" {
		return img, nil
	}
	for _, col := range h.Columns {
		if !col.Binary { // compressed data shows itself in the binary form of its values
			img.WhyRows = fmt.Sprintf("type %s of column %q has no binary form", col.Type, col.Name)
			return img, nil
		}
	}
	if img.WhyRows, err = d.unreadable(ctx, c); err != nil || img.WhyRows != "" {
		return img, err
	}
	if img.Relation, img.WhyRows, err = c.Relation(ctx, d.db, h); err != nil || img.WhyRows != "" {
		return img, err
	}
	if column := img.Relation.Broken(); column != "" {
		img.Relation, img.WhyRows = nil, fmt.Sprintf("the server has cut the name of metadata of column %q "+
			"within a character, and takes it from no client", column)
		return img, nil
	}
	// In a batch that is older than a column, SQL NULL stands for the default that
	// the column was added with. The target's chunk may be younger than the column
	// and would read NULL.
	for _, m := range img.Relation.Added {
		if slices.Contains(img.Relation.Nulls, m) {
			img.WhyRows = fmt.Sprintf("column %q was added with a default after the chunk was compressed", m)
			img.Relation = nil
			break
		}
	}
	return img, nil
}

// hidden counts the rows in the task's range that no query of the chunk shows. They
// do not travel: what queries show is what is copied.
func (d *Dumper) hidden(ctx context.Context, c *tsdb.Chunk, h *tsdb.Hypertable, t *task.Task) (int64, error) {
	if !c.Hides() || !t.Range.Partial {
		return c.HiddenRows(ctx, d.db, "")
	}
	where, err := h.RangeCondition(d.db, t)
	if err != nil {
		return 0, err
	}
	// A partitioning function of the user's: see dump.
	if _, err := d.db.Exec(ctx, "set local search_path to default"); err != nil {
		return 0, err
	}
	n, err := c.HiddenRows(ctx, d.db, where)
	if err == nil {
		_, err = d.db.Exec(ctx, "set local search_path = pg_catalog, pg_temp")
	}
	return n, err
}

// whyRows says what in the state of a compressed chunk, or in the task, makes
// its rows travel instead.
func whyRows(c *tsdb.Chunk, t *task.Task) string {
	switch {
	case t.RowsOnly != "":
		return t.RowsOnly
	case t.Range.Partial:
		return "the staged range covers only a part of the chunk"
	case c.Status&tsdb.StatusUnordered != 0:
		// No call sets this bit on the target, which would take the batches for
		// ordered ones.
		return "its batches are unordered"
	case c.AM == "hypercore":
		// SELECT FROM ONLY returns all its rows, not the uncompressed ones.
		return "it uses the hypercore access method"
	}
	return ""
}

// unreadable says why the role cannot read the compressed relation, which has
// privileges of its own: those the hypertable had when it was compressed.
func (d *Dumper) unreadable(ctx context.Context, c *tsdb.Chunk) (why string, err error) {
	var may bool
	var role string
	err = d.db.QueryRow(ctx, "select has_table_privilege($1::oid, 'select'), quote_ident(current_user)", c.RelationOID).
		Scan(&may, &role)
	if err != nil || may {
		return "", err
	}
	rel, err := d.db.RelationName(ctx, c.RelationOID)
	return fmt.Sprintf("the source's role may not read the compressed relation; this helps: grant select on %s to %s",
		rel, role), err
}
