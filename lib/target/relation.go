package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// relation is a compressed relation that is to become the task's chunk's. One that
// the stream brings is made ready for this target: nothing of the stream's text gets
// into SQL but quoted names of columns; types and collations are compared with those
// of the target's own hypertable.
type relation struct {
	*load
	tsdb.Built
	keys   foreignKeys // to be checked
	drop   []bool      // columns of the stream that are left out; nil for none
	format string
}

// describe compares the compressed relation that the stream announces with the
// target, and says why it cannot be one here as far as that shows.
func describe(ctx context.Context, ld *load) (*relation, obstacle, error) {
	version := ld.header.Source.TimescaleDB
	r := &relation{load: ld, Built: tsdb.Built{Relation: ld.image.Relation}}
	switch {
	case !ld.Full:
		return nil, obstacle{what: "the target is the Apache edition"}, nil
	case !ld.ht.CompressionEnabled:
		return nil, obstacle{what: "compression is not enabled on the target"}, nil
	case !ld.ReadsBatchesOf(version):
		return nil, obstaclef("the target's TimescaleDB %s is older than the source's %s", ld.TimescaleDB, version), nil
	}
	if err := r.Valid(); err != nil {
		return nil, obstacle{}, malformed(ld.task, fmt.Errorf("description of the compressed relation: %w", err))
	}
	// The columns that the stream announces are those that it describes.
	part := ld.header.Parts[0]
	if !slices.EqualFunc(part.Columns, r.Columns, func(a stream.Column, b tsdb.RelationColumn) bool {
		return a.Name == b.Name && a.Type == b.Type
	}) {
		return nil, obstacle{}, malformed(ld.task,
			errors.New("the compressed relation's columns are not those that travel"))
	}
	r.format = part.Format
	mine, err := ld.lane.columns(ctx, ld.ht)
	if err != nil {
		return nil, obstacle{}, err
	}
	if mine.encoding != r.Encoding {
		return nil, obstaclef("the databases' encodings differ (%s, %s)", r.Encoding, mine.encoding), nil
	}
	if no := (obstacle{what: r.Foreign(mine.all)}); !no.none() {
		return nil, no, nil
	}
	if no := r.keep(version); !no.none() {
		return nil, no, nil
	}
	if r.drop != nil && r.format != stream.Text {
		return nil, obstacle{}, malformed(ld.task,
			errors.New("bloom filters of the compressed relation in binary format"))
	}
	return r, obstacle{}, nil
}

// columns are those of a hypertable.
func (l *Loader) columns(ctx context.Context, ht *tsdb.Hypertable) (c columns, err error) {
	if c = l.known.columns; c.version == ht.Version {
		return c, nil
	}
	c.version = ht.Version
	if c.all, c.encoding, err = tsdb.RelationColumns(ctx, l.session.DB, ht.OID); err == nil {
		l.known.columns = c
	}
	return c, err
}

// keep leaves out the columns that this server cannot use, and says why the relation
// cannot do without them.
func (r *relation) keep(version string) (none obstacle) {
	without := map[string]bool{}
	for _, c := range r.Columns {
		if c.Trusts(r.DB, version) {
			r.Kept = append(r.Kept, c)
		} else {
			without[c.Name] = true
		}
	}
	for _, i := range r.Indexes {
		for _, c := range i {
			if without[c.Column] {
				return obstaclef("an index of the compressed relation is on column %q", c.Column)
			}
		}
	}
	if len(without) > 0 {
		for _, c := range r.Columns {
			r.drop = append(r.drop, without[c.Name])
		}
	}
	r.Sparse = r.Relation.Sparse(without)
	return none
}

// losesNulls says which NULLs the chunk would lose: a batch without a value of a
// column may be NULL as a whole, and that stands for the default where the column
// was added to the chunk with one.
func (r *relation) losesNulls(ctx context.Context) (no obstacle, err error) {
	if len(r.Nulls) == 0 {
		return no, nil
	}
	missing, err := r.Missing(ctx, r.chunk.OID)
	for _, column := range missing {
		if slices.Contains(r.Nulls, column) {
			no = obstaclef("NULLs of column %q, which was added with a default to the target's chunk, would be lost",
				column)
			no.loose = task.LooseDefault
			return no, nil
		}
	}
	return no, err
}

// misfit is the error for an obstacle that shows while a relation becomes a
// chunk's.
type misfit struct {
	obstacle
	settings bool // it might do with other settings of the hypertable
}

func (e *misfit) Error() string { return e.String() }

func misfitf(format string, args ...any) error { return &misfit{obstacle: obstaclef(format, args...)} }

// asMisfit turns a refusal of the server into a misfit. Lock timeouts, deadlocks,
// shutdowns, a lack of resources and lost connections are none.
func asMisfit(err error) error {
	code := pg.Code(err)
	if code == "" || code == pg.LockNotAvailable || slices.Contains([]string{"40", "53", "57"}, code[:2]) {
		return err
	}
	return misfitf("the target refuses it: %s", pg.Describe(err))
}

// asObstacle returns the obstacle of a misfit.
func asObstacle(err error) (obstacle, error) {
	var m *misfit
	if errors.As(err, &m) {
		return m.obstacle, nil
	}
	return obstacle{}, err
}

// kind is a relation that stands for all that get into a chunk as it does: of the
// same hypertable, with the same columns, indexes and settings.
type kind struct {
	hypertable int32
	relation   *tsdb.Relation
}

// is reports whether the relation is of that kind.
func (r *relation) is(k kind) bool {
	return k.relation != nil && k.hypertable == r.ht.ID && k.relation.SameKind(r.Relation)
}

// tryAttach attaches the relation without batches, which is rolled back. An obstacle
// to it is a misfit.
func (r *relation) tryAttach(ctx context.Context) error {
	found := r.chunk
	defer func() { r.chunk = found }()
	err := r.altering(func(alter bool) error {
		return r.transaction(ctx, "", func() error {
			if r.chunk = found; found == nil {
				return r.tryWithChunk(ctx, alter)
			}
			built, err := r.empty(ctx)
			if err != nil {
				return err
			}
			many, err := r.exceedsLockBudget(ctx, r.chunk)
			if err != nil {
				return err
			}
			return locker{r.load}.atLast(ctx, r.lockToEmpty(many), alter, func() error {
				if err := (emptier{r.load}).forBatches(ctx, many); err != nil {
					return err
				}
				_, err := built.attach(ctx, alter)
				return errOr(err, errRehearsal)
			})
		})
	})
	if err == errRehearsal {
		r.lane.known.attached = kind{r.ht.ID, r.Relation}
		return nil
	}
	return err
}

// tryWithChunk does so where there is no chunk: what is refused leaves none behind. To
// make it locks the application out, so all else is made before, as far as it does not
// take a chunk.
func (r *relation) tryWithChunk(ctx context.Context, alter bool) (err error) {
	var built *relation
	if r.Broken() == "" {
		if built, err = r.empty(ctx); err != nil {
			return err
		}
	}
	return locker{r.load}.atLast(ctx, "", alter, func() error {
		err := (chunkMaker{r.load}).createOwn(ctx)
		if err == nil && built == nil {
			built, err = r.empty(ctx)
		}
		if err == nil {
			_, err = built.attach(ctx, alter)
		}
		return errOr(err, errRehearsal)
	})
}

// empty builds the relation without batches, for a rehearsal. If its columns cannot
// be named, that is one like it, as the server makes it.
func (r *relation) empty(ctx context.Context) (built *relation, err error) {
	if r.Broken() != "" {
		s, err := newScratch(ctx, r.load)
		if err != nil {
			return nil, err
		}
		if r, err = s.compress(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.Built.Build(ctx, r.DB, r.ht, r.chunk); err != nil {
		return nil, err
	}
	return r, r.Built.Index(ctx, r.DB)
}

// compressChunk has the server compress the chunk, which it makes if there is none,
// in a short transaction with the settings of the relation. If what it makes is
// another relation, nothing has changed, and that is the obstacle.
func (r *relation) compressChunk(ctx context.Context) (err error) {
	found := r.chunk
	r.unlike, err = asObstacle(r.withChunk(ctx, func(alter bool) error {
		_, err := r.withSettings(ctx, alter, true, nil, r.chunk.CompressSQL(r.DB))
		return err
	}))
	r.chunk, r.alike = found, err == nil && r.unlike.none()
	return err
}

// withChunk runs f briefly with the task's chunk, which it makes if there is none.
func (r *relation) withChunk(ctx context.Context, f func(alter bool) error) error {
	found := r.chunk
	return r.altering(func(alter bool) error {
		return r.briefly(ctx, func() error {
			if err := (locker{r.load}).lockHypertable(ctx, alter); err != nil {
				return err
			}
			if r.chunk = found; found == nil {
				if err := (chunkMaker{r.load}).createOwn(ctx); err != nil {
					return err
				}
			}
			return f(alter)
		})
	})
}

// altering runs f, and again, with alter, where the settings of the hypertable are
// in its way. That is remembered for relations of this kind: f has mostly been
// for nothing then, with the application kept out.
func (r *relation) altering(f func(alter bool) error) error {
	if r.is(r.lane.known.altering) {
		return f(true)
	}
	err := f(false)
	var m *misfit
	if errors.As(err, &m) && m.settings {
		r.lane.known.altering = kind{r.ht.ID, r.Relation}
		err = f(true)
	}
	return err
}

// attach makes the relation the chunk's, which has none, with the settings that it
// was compressed with.
func (r *relation) attach(ctx context.Context, alter bool) (*tsdb.Attached, error) {
	tried := r.is(r.lane.known.attached) // and what came of it was compared, column by column
	return r.withSettings(ctx, alter, !tried, &r.Built, r.Built.AttachSQL(r.DB, r.chunk))
}

// withSettings runs a script that makes the chunk a compressed one, with the relation b
// or, for nil, with one that the server makes: it gives the chunk the settings that the
// hypertable has at this moment. If those are not the settings of r, the misfit says so,
// and the script has to be undone. With alter, it runs while the hypertable has the
// settings of r; its own are put back at once. That locks the hypertable against
// everybody until the transaction ends: only the commit may follow. columns are compared
// where the server makes the relation, or tries one.
func (r *relation) withSettings(ctx context.Context, alter, columns bool, b *tsdb.Built,
	script string) (*tsdb.Attached, error) {
	var own *tsdb.Settings
	if alter {
		var configured []tsdb.SparseIndex
		var err error
		if own, configured, err = tsdb.OwnSettings(ctx, r.DB, r.ht); err != nil {
			return nil, err
		}
		if own == nil {
			return nil, misfitf("compression is not enabled on the target")
		}
		want := r.Settings
		if want.SegmentBy == nil {
			want.SegmentBy = []string{}
		}
		script = want.SetSQL(r.DB, r.ht, r.Sparse) + "; " + script + "; " +
			tsdb.ResetSQL(r.DB, r.ht, own, configured)
	}
	var seen *tsdb.Attached
	_, err := r.Exec(ctx, script)
	if err = asMisfit(err); err == nil {
		seen, err = r.chunk.Attached(ctx, r.DB, r.ht, b)
	}
	if err == nil {
		err = r.matches(ctx, seen.Chunk, seen.Settings, columns)
	}
	var m *misfit
	switch {
	case errors.As(err, &m):
		m.settings = !alter && r.SettingsPerChunk()
		return nil, err
	case err != nil:
		return nil, err
	case alter && (seen.Own == nil || !seen.Own.Same(own)):
		return nil, misfitf("the compression settings of the target's hypertable could not be put back as they were")
	}
	r.chunk = seen.Chunk
	return seen, nil
}

// matches reports by a misfit whether a chunk's compressed relation and its settings
// are those of this one; its columns if they are to be compared.
func (r *relation) matches(ctx context.Context, c *tsdb.Chunk, s *tsdb.Settings, columns bool) (err error) {
	differs := r.Built.Differs(r.DB, c, s)
	if differs == "" && columns {
		differs, err = r.Built.ColumnsDiffer(ctx, r.DB, c)
	}
	if err == nil && differs != "" {
		err = misfitf("%s", differs)
	}
	return err
}

// isLike does so for a chunk that was compressed before.
func (r *relation) isLike(ctx context.Context, c *tsdb.Chunk) error {
	s, err := c.Settings(ctx, r.DB)
	if err != nil {
		return err
	}
	return r.matches(ctx, c, s, true)
}

// lockToEmpty is how the chunk is locked for that, with TRUNCATE or without.
func (r *relation) lockToEmpty(truncate bool) string {
	if truncate || r.chunk.IsCompressed() {
		return "access exclusive"
	}
	return "share row exclusive"
}

// replaceChunk makes the filled relation, which is ready, the chunk's in place of all that the chunk
// holds, and fill puts rows beside it. The chunk is emptied by TRUNCATE if that is
// what it takes. Nobody writes to the chunk meanwhile.
func (r *relation) replaceChunk(ctx context.Context, truncate bool, fill func() error) error {
	mode := r.lockToEmpty(truncate)
	return r.altering(func(alter bool) error {
		return locker{r.load}.atLast(ctx, mode, alter, func() error {
			if err := (emptier{r.load}).forBatches(ctx, truncate); err != nil {
				return err
			}
			if err := fill(); err != nil {
				return err
			}
			return r.become(ctx, alter)
		})
	})
}

// attachAtLast makes the filled relation that of the chunk, which has been emptied,
// and has rows beside it by now. Writers of other rows were not kept out of it.
func (r *relation) attachAtLast(ctx context.Context) error {
	return r.altering(func(alter bool) error {
		return locker{r.load}.atLast(ctx, "share", alter, func() error { return r.become(ctx, alter) })
	})
}

// become attaches the relation and makes the chunk like one that the server
// compressed.
func (r *relation) become(ctx context.Context, alter bool) error {
	seen, err := r.attach(ctx, alter)
	if err != nil {
		return r.Wrap(err, "attach the compressed relation to chunk %s", r.chunk.Name)
	}
	if err := r.Built.AddKeys(ctx, r.DB, seen); err != nil {
		return err
	}
	if seen.Beside && !seen.Chunk.IsPartial() {
		if err := r.showBeside(ctx); err != nil {
			return err
		}
	}
	return r.Built.NameLike(ctx, r.DB, seen)
}

// showBeside marks the chunk as partially compressed: there are rows beside its
// batches, and no query would look for them. ≤ 2.13: attaching does not look for them,
// so one of them comes in anew by the hypertable.
func (r *relation) showBeside(ctx context.Context) error {
	_, err := r.execAsUser(ctx, fmt.Sprintf("with one as (delete from only %s where ctid = "+
		"(select ctid from only %[1]s limit 1) returning %s) "+
		"insert into %s (%[2]s) overriding system value select %[2]s from one",
		r.chunk.Quoted(), copied(r.ht), r.hypertable()))
	return r.Wrap(err, "mark chunk %s as partially compressed", r.chunk.Name)
}

// takeExisting has the relation that the chunk has stand for this one, and empties
// it. DELETE, not TRUNCATE: readers see the old batches until the commit.
func (r *relation) takeExisting(ctx context.Context) (err error) {
	e := emptier{r.load}
	if err := e.lockUnreferenced(ctx); err != nil {
		return err
	}
	if err := r.isLike(ctx, r.chunk); err != nil {
		return changed(r.chunk.Name)
	}
	if err := r.chunk.Unfreeze(ctx, r.DB); err != nil {
		return err
	}
	if r.Name, err = r.RelationName(ctx, r.chunk.RelationOID); err != nil {
		return err
	}
	if err := (invalidation{r.load}).keepEnds(ctx); err != nil {
		return err
	}
	if err := e.deleteAll(ctx, r.Name); err != nil {
		return err
	}
	return e.deleteAll(ctx, r.chunk.Quoted())
}

// foreignKeys are those of the hypertable.
type foreignKeys []pg.ForeignKey

// check checks the foreign keys of what is in a relation, batches or rows of a chunk,
// and keeps the rows that they name from being deleted before the commit, as the
// server does.
func (keys foreignKeys) check(ctx context.Context, s *session, chunk *tsdb.Chunk, relation string) error {
	for _, k := range keys {
		var columns, some, equal, show []string
		for i, c := range k.Columns {
			c = pg.Ident(c)
			columns, some = append(columns, c), append(some, "b."+c+" is not null")
			equal = append(equal, "k."+pg.Ident(k.Keys[i])+" = b."+c)
			show = append(show, "b."+c+"::text")
		}
		table := pg.Ident(k.Schema, k.Table)
		var lost *string
		err := s.scanAsUser(ctx, fmt.Sprintf("select (select concat_ws(', ', %s) "+
			"from (select distinct %s from only %s) b "+
			"where %s and not exists (select from %s k where %s for key share of k) limit 1)",
			strings.Join(show, ", "), strings.Join(columns, ", "), relation,
			strings.Join(some, " and "), table, strings.Join(equal, " and ")), &lost)
		if err != nil {
			return s.Wrap(err, "foreign key %q of chunk %s", k.Name, chunk.Name)
		}
		if lost != nil {
			return fault("chunk "+chunk.Name.String(), "copy the rows of that table first, then run the task again",
				"violates foreign key constraint %q: (%s)=(%s) is not in %s (SQLSTATE 23503)",
				k.Name, strings.Join(k.Columns, ", "), *lost, table)
		}
	}
	return nil
}
