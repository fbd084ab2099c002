package target

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// gatherer finds out what decide has to know. It changes nothing: what only the
// server can tell is tried in transactions that are rolled back. It asks no more
// than the decision can depend on, since each question is a round trip.
type gatherer struct {
	*load
	facts
	may  bool // the role may create relations where compressed ones have to be
	role string
}

// sight is what the server says of the place of a task's rows.
type sight struct {
	ht     *tsdb.Hypertable
	chunk  *tsdb.Chunk // nil for none
	dep    tsdb.Dependents
	may    bool
	role   string
	skewed bool // see tsdb.Chunk.AskSkewed; of the chunk with this OID
	oid    uint32
}

// askSight asks for it.
func askSight(ask *pgx.Batch, db *tsdb.DB, h *tsdb.Hypertable, t *task.Task) *sight {
	s := &sight{ht: h}
	tsdb.AskChunkOf(db, ask, h, t.Slices, &s.chunk)
	tsdb.AskDependents(ask, h, &s.dep)
	tsdb.AskMayBuild(ask, &s.may, &s.role)
	return s
}

func (ld *load) gather(ctx context.Context) (facts, error) {
	img := ld.image
	g := gatherer{load: ld, facts: facts{
		raw: img.Relation != nil, compressed: img.Compressed, frozen: img.Frozen,
		large: ld.part.Bytes >= attachFrom, partial: ld.task.Range.Partial,
		whyRows: obstacle{what: img.WhyRows}, full: ld.Full, compression: ld.ht.CompressionEnabled && ld.Full,
	}}
	err := g.findChunk(ctx)
	switch {
	case err != nil || g.raw && !g.noChunk.none():
		return g.facts, err
	case g.missing && !g.raw: // one that rows need is made, whatever comes then
		if g.tablePays() {
			g.attaches, err = tableAsChunk{ld}.attaches(ctx)
		}
		return g.facts, err
	}
	switch {
	case g.raw:
		err = g.ofStream(ctx)
	case ld.chunk != nil:
		err = g.ofChunk(ctx)
	}
	if !g.unfit.none() {
		g.unfit.loose = cmp.Or(g.unfit.loose, task.LooseRefused)
	}
	return g.facts, err
}

// findChunk looks for the chunk with the task's extent, and says whether one is
// still to be made, or why there is none, or none that takes rows.
func (g *gatherer) findChunk(ctx context.Context) (err error) {
	seen := g.seen
	g.seen = nil // the next time it has to be asked again
	if seen == nil {
		var ask pgx.Batch
		seen = askSight(&ask, g.DB, g.ht, g.task)
		if g.madeOID != 0 {
			seen.askSkewed(&ask, &tsdb.Chunk{OID: g.madeOID})
		}
		if err := g.SendBatch(ctx, &ask).Close(); err != nil {
			return g.Wrap(err, "look up the chunk")
		}
	}
	g.chunk, g.dep, g.may, g.role = seen.chunk, seen.dep, seen.may, seen.role
	if g.chunk == nil {
		g.missing, g.noChunk = !g.made, g.unmade
		if g.made && g.raw && g.unmade.none() {
			g.noChunk = cutDifferently
		}
		if why := g.ht.Unaligned(g.task.Slices); why != "" {
			g.noChunk = obstacle{what: why, loose: task.LooseDimensions}
		}
		return nil
	}
	if seen.oid != g.chunk.OID {
		var ask pgx.Batch
		seen.askSkewed(&ask, g.chunk)
		if err := g.SendBatch(ctx, &ask).Close(); err != nil {
			return g.Wrap(err, "columns of chunk %s", g.chunk.Name)
		}
	}
	if g.load.indirect = seen.skewed; g.load.indirect {
		g.facts.indirect.what = "the chunk's columns have other numbers than the hypertable's"
	}
	return nil
}

func (s *sight) askSkewed(ask *pgx.Batch, c *tsdb.Chunk) {
	s.oid = c.OID
	tsdb.AskSkewed(ask, c, s.ht, &s.skewed)
}

// ofStream looks at the relation that the stream brings.
func (g *gatherer) ofStream(ctx context.Context) (err error) {
	if g.relation == nil {
		if g.relation, g.unfit, err = describe(ctx, g.load); err != nil || !g.unfit.none() {
			return err
		}
		if g.unfit, err = g.unchecked(ctx); err != nil || !g.unfit.none() {
			return err
		}
	}
	return g.ofRelation(ctx)
}

// ofChunk looks at the chunk that rows go into.
func (g *gatherer) ofChunk(ctx context.Context) (err error) {
	g.batches = g.compression && g.chunk.IsCompressed()
	if g.batches && !g.chunk.IsFrozen() && !g.alike {
		if g.empty, err = (emptier{g.load}).canDecompress(ctx, g.chunk); err != nil || g.empty {
			return err
		}
	}
	m, err := newMerger(ctx, g.load, false)
	if err != nil {
		return err
	}
	g.referenced, g.referencedRows = m.key != nil, m.rows
	if g.endsCompressed() && !g.referenced {
		return g.ofCompression(ctx)
	}
	return nil
}

// ofCompression finds out whether rows can be compressed in a scratch hypertable,
// and how what comes of it gets into the chunk. compress_chunk on the chunk itself
// would lock the application out of it for as long as that takes.
func (g *gatherer) ofCompression(ctx context.Context) (err error) {
	if len(g.dep.OnInsert) > 0 { // a trigger may query rows inserted earlier
		g.insertFirst = triggersFire(g.dep)
	} else if _, g.insertFirst, err = g.foreignKeys(ctx); err != nil {
		return err
	}
	missing, err := g.Missing(ctx, g.chunk.OID)
	if err != nil {
		return err
	}
	for _, c := range g.ht.Columns { // compression could turn NULL into the default
		if g.insertFirst.none() && !c.NotNull && slices.Contains(missing, c.Name) {
			g.insertFirst = obstaclef("column %q was added with a default to the target's chunk", c.Name)
		}
	}
	known := &g.lane.known.compressed
	if known.version != g.ht.Version {
		if *known, err = tryCompression(ctx, g.load); err != nil {
			return err
		}
	}
	if g.unfit = known.obstacle; !g.unfit.none() {
		return nil
	}
	g.relation = &relation{load: g.load, Built: known.built}
	return g.ofRelation(ctx)
}

// ofRelation finds out how a compressed relation can become the chunk's: it tries
// that with an empty one, or, where the role may not make any, looks at the one that
// the server makes.
func (g *gatherer) ofRelation(ctx context.Context) (err error) {
	r := g.relation
	if g.chunk != nil {
		if g.unfit, err = r.losesNulls(ctx); err != nil || !g.unfit.none() {
			return err
		}
	}
	if g.may {
		if !r.is(g.lane.known.attached) {
			g.unfit, err = asObstacle(r.tryAttach(ctx))
		}
		return err
	}
	g.build = obstacle{what: "the role may not create relations in schema _timescaledb_internal",
		remedy: "grant create on schema _timescaledb_internal to " + g.role, loose: task.LoosePrivilege}
	if g.insertFirst.none() {
		g.uncompressed = g.chunk == nil || !g.chunk.IsCompressed()
		g.existing, err = g.ofExisting(ctx)
	}
	return err
}

// ofExisting says why the relation that the server makes for the chunk does not
// take the batches.
func (g *gatherer) ofExisting(ctx context.Context) (no obstacle, err error) {
	skips, err := tsdb.Skips(ctx, g.DB, g.ht)
	if skips || err != nil {
		return obstacle{what: "chunk skipping would go by the ranges of the rows that were in the chunk before"}, err
	}
	if no = (invalidation{g.load}).obstacle(); !no.none() {
		return no, nil
	}
	switch {
	case g.chunk == nil || !g.unlike.none():
		return g.unlike, nil
	case g.chunk.IsCompressed():
		return asObstacle(g.relation.isLike(ctx, g.chunk))
	case g.chunk.Status != 0:
		return obstacle{what: "the target's chunk is frozen"}, nil
	}
	many, err := g.exceedsLockBudget(ctx, g.chunk)
	if many { // to compress them would keep the application out
		no.what = "the target's chunk has uncompressed rows"
	}
	return no, err
}

// unchecked says what the server would not check of rows that come compressed, but
// does with rows that come as such: no constraint is checked and no trigger fires
// for what is written to a compressed relation. What the source has enforced itself
// need not be checked again, but what rows of other tables there are is the
// target's own affair.
func (g *gatherer) unchecked(ctx context.Context) (no obstacle, err error) {
	r := g.relation
	if demand := g.ht.Stricter(r.Enforced); demand != "" {
		return obstaclef("only the target demands of its rows: %s", demand), nil
	}
	if len(g.dep.OnInsert) > 0 {
		return triggersFire(g.dep), nil
	}
	// Rows tell the aggregates of themselves, of batches only TRUNCATE does.
	if g.dep.Aggregated && g.dep.ReferencedKey != nil {
		return obstacle{what: "a continuous aggregate would not learn of the rows: " +
			"TRUNCATE is refused on a table that others reference"}, nil
	}
	if r.keys, no, err = g.foreignKeys(ctx); err != nil || !no.none() {
		return no, err
	}
	for _, k := range r.keys {
		for _, c := range k.Columns {
			if !slices.Contains(r.Settings.SegmentBy, c) {
				return obstaclef("foreign key %q cannot be checked: column %q is compressed", k.Name, c), nil
			}
		}
	}
	return no, nil
}

func triggersFire(d tsdb.Dependents) obstacle {
	return obstacle{what: "row triggers of the target have to fire", detail: strings.Join(d.OnInsert, ", ")}
}

// foreignKeys returns the foreign keys of the hypertable, and why the role cannot
// check one of them.
func (g *gatherer) foreignKeys(ctx context.Context) (keys []pg.ForeignKey, no obstacle, err error) {
	if g.lane.known.keyless == g.ht.Version {
		return nil, no, nil
	}
	if keys, err = g.ForeignKeys(ctx, g.ht.OID); err != nil {
		return nil, no, err
	}
	if len(keys) == 0 {
		g.lane.known.keyless = g.ht.Version
	}
	for _, k := range keys {
		if !k.Allowed {
			role, err := g.Role(ctx)
			no = obstaclef("foreign key %q cannot be checked", k.Name)
			no.remedy = "grant select, update on " + pg.Ident(k.Schema, k.Table) + " to " + role
			return nil, no, err
		}
	}
	return keys, no, nil
}
