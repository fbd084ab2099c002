package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// scratch is a hypertable like the task's with one chunk of the same extent, in
// which the server compresses rows. It is made and dropped in one transaction: no
// other session sees it or waits for its locks.
type scratch struct {
	*load
	table *tsdb.Blueprint // of own
	own   *tsdb.Hypertable
	part  *tsdb.Chunk // of own
}

// newScratch makes one, with the columns and checks of the chunk: a lock on the
// hypertable would be in the way of lanes that have to alter its settings.
func newScratch(ctx context.Context, ld *load) (s *scratch, err error) {
	s = &scratch{load: ld}
	if s.table, err = blueprint(ctx, ld, ld.chunk.Name); err != nil {
		return nil, err
	}
	if s.own, s.part, err = s.table.Scratch(ctx, ld.DB, ld.ht, ld.task.Slices[0]); err == nil && s.part == nil {
		err = &misfit{obstacle: cutDifferently}
	}
	return s, err
}

// compress has the server compress the chunk, with the settings of the hypertable,
// and returns what it makes. The indexes enforce the unique keys and tell the server
// which sparse indexes to make. They are built first: 2.11 builds no unique index once
// compression is enabled.
func (s *scratch) compress(ctx context.Context) (*relation, error) {
	if err := s.buildIndexes(ctx, s.ht, s.table); err != nil {
		return nil, err
	}
	own, configured, err := tsdb.OwnSettings(ctx, s.DB, s.ht)
	if err != nil {
		return nil, err
	}
	if err := tsdb.SetSettings(ctx, s.DB, s.own, own, configured); err != nil {
		return nil, err
	}
	if err := s.part.Compress(ctx, s.DB); err != nil {
		return nil, err
	}
	c, err := s.Chunk(ctx, s.part.Name)
	if err != nil {
		return nil, err
	}
	described, why, err := c.Relation(ctx, s.DB, s.own)
	if err != nil {
		return nil, err
	}
	if described == nil {
		return nil, misfitf("%s", why)
	}
	b := tsdb.Built{Relation: described, Kept: described.Columns, Sparse: described.Sparse(nil)}
	r := &relation{load: s.load, Built: b}
	if r.Name, err = s.RelationName(ctx, c.RelationOID); r.Broken() != "" {
		r.Like = r.Name
	}
	return r, err
}

// replace has the rows compressed and puts what comes of it in the place of what
// the task's chunk holds, or into its existing relation.
func (s *scratch) replace(ctx context.Context, existing, truncate bool) error {
	r, err := s.compress(ctx)
	if err != nil {
		return err
	}
	no, err := r.losesNulls(ctx)
	if err == nil && !no.none() {
		err = &misfit{obstacle: no}
	}
	if err != nil {
		return err
	}
	from := r.Name
	if existing {
		err = r.takeExisting(ctx)
	} else {
		err = r.Built.Build(ctx, s.DB, s.ht, s.chunk)
	}
	if err != nil {
		return err
	}
	if err := r.Built.Refill(ctx, s.DB, from); err != nil {
		return err
	}
	// With the hypertable alone, 2.28 would leave the batches behind for good.
	for _, table := range []string{s.part.Quoted(), s.table.Name} {
		if _, err := s.Exec(ctx, "drop table "+table); err != nil {
			return s.Wrap(err, "drop table %s", table)
		}
	}
	if existing {
		return invalidation{s.load}.ofChunk(ctx)
	}
	if err := s.lookAgain(ctx); err != nil { // an aggregate may be new
		return err
	}
	many, err := s.exceedsLockBudget(ctx, s.chunk)
	if err != nil {
		return err
	}
	if err := r.Ready(ctx, s.DB); err != nil {
		return err
	}
	return r.replaceChunk(ctx, truncate || many || s.dep.Aggregated, func() error { return nil })
}

// compression is what the server makes of a hypertable's rows.
type compression struct {
	version  string     // of the hypertable
	obstacle obstacle   // why nothing
	built    tsdb.Built // without batches
}

// tryCompression has the server compress a scratch hypertable without a row, which
// is rolled back.
func tryCompression(ctx context.Context, ld *load) (c compression, err error) {
	c.version = ld.ht.Version
	c.obstacle, err = asObstacle(asMisfit(ld.rehearse(ctx, func() error {
		s, err := newScratch(ctx, ld)
		if err != nil {
			return err
		}
		r, err := s.compress(ctx)
		if err == nil {
			c.built = r.Built
		}
		return err
	})))
	return c, err
}

// compressedApart has rows compressed in a scratch hypertable, and then replaces
// what the chunk holds.
type compressedApart struct {
	*load
	existing bool // into the relation that the chunk has
	scratch  *scratch
}

func (w *compressedApart) copy(ctx context.Context) (err error) {
	if w.scratch, err = newScratch(ctx, w.load); err != nil {
		return err
	}
	_, err = w.copyRows(ctx, w.scratch.part.Quoted())
	var e *pg.Error
	if errors.As(err, &e) { // don't show users the scratch table
		e.Object = "copy the rows of chunk " + w.chunk.Name.String()
	}
	return err
}

func (w *compressedApart) finish(ctx context.Context) error {
	keys, err := w.ForeignKeys(ctx, w.ht.OID)
	if err != nil {
		return err
	}
	if err := foreignKeys(keys).check(ctx, w.session, w.chunk, w.scratch.part.Quoted()); err != nil {
		return err
	}
	return w.scratch.replace(ctx, w.existing, false)
}

// rowsThenCompressed has the rows that are in the chunk compressed in a scratch
// hypertable, and the chunk replaced by that, unless the server refuses it.
type rowsThenCompressed struct{ rowsInto }

func (w *rowsThenCompressed) finish(ctx context.Context) error {
	no, err := asObstacle(asMisfit(w.savepoint(ctx, func() error {
		s, err := newScratch(ctx, w.load)
		if err != nil {
			return err
		}
		// What triggers have deferred would forbid TRUNCATE.
		if _, err := w.execAsUser(ctx, fmt.Sprintf("set constraints all immediate; "+
			"insert into %s (%s) overriding system value select %[2]s from only %s",
			s.part.Quoted(), copied(w.ht), w.chunk.Quoted())); err != nil {
			return w.Wrap(err, "copy the rows of chunk %s", w.chunk.Name)
		}
		return s.replace(ctx, false, true) // triggers would see rows deleted that came into the chunk
	})))
	if err != nil || no.none() {
		return err
	}
	m := rowsChunk
	if w.root {
		m = rowsRoot
	}
	w.facts.unfit, w.facts.unfit.loose = no, cmp.Or(no.loose, task.LooseRefused)
	w.result.Way, w.result.LeftUncompressed = string(m), w.facts.left(m)
	w.result.WhyNotRaw += "; left uncompressed: " + no.String()
	return w.rowsInto.finish(ctx)
}
