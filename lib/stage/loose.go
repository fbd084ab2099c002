package stage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Loose are the chunks of a hypertable that are compressed on the source and will be
// left uncompressed on the target, for one reason.
type Loose struct {
	Of         task.Name // as users know it
	Why        task.Loose
	Maybe      bool // it depends on what only the copy finds out
	Chunks     int
	tsdb.Sizes        // of the staged ranges; Uncompressed is 0 where the source does not know
	Helps      string // for people
}

// sizes notes which of the staged chunks are compressed, and their sizes.
func (p *Plan) sizes(ctx context.Context, src *tsdb.DB, chunks []*tsdb.Chunk, tasks []*task.Task) error {
	staged := map[task.Name]*task.Task{}
	for _, t := range tasks {
		staged[t.Chunk] = t
	}
	var ids []int32
	var oids []uint32
	for _, c := range chunks {
		if staged[c.Name] != nil && c.Status&tsdb.StatusCompressed != 0 {
			ids, oids = append(ids, c.ID), append(oids, c.OID)
		}
	}
	if ids == nil {
		return nil
	}
	sizes, err := tsdb.ChunkSizes(ctx, src, ids)
	if err != nil {
		return err
	}
	grown, err := src.Grown(ctx, oids)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		if staged[c.Name] == nil || c.Status&tsdb.StatusCompressed == 0 {
			continue
		}
		share := shareOf(staged[c.Name])
		s := sizes[c.ID]
		p.Compressed[c.Name] = Compressed{tsdb.Sizes{Rows: int64(float64(s.Rows) * share),
			Uncompressed: int64(float64(s.Uncompressed) * share), Compressed: int64(float64(s.Compressed) * share)},
			c.Status&tsdb.StatusUnordered != 0 || c.AM == "hypercore", slices.Contains(grown, c.OID)}
	}
	return nil
}

// shareOf is how much of its chunk's extent a task's range is.
func shareOf(t *task.Task) float64 {
	r := task.Slice{From: t.Range.From, Until: t.Range.Until}
	from, until := r.Bounds()
	first, last := t.Slices[0].Bounds()
	return (float64(until) - float64(from)) / (float64(last) - float64(first))
}

// outlook is what decides whether chunks end compressed in a hypertable of the target.
type outlook struct {
	db         *tsdb.DB
	t          *tsdb.Hypertable
	byRows     bool // no compressed relation can travel
	dependents tsdb.Dependents
	mayBuild   bool
	role       string
	chunks     []*tsdb.Chunk // of t
	settled    func(task.Slice) bool
	policy     *tsdb.Job // that compresses chunks of t
}

// look finds these things out. byRows says why the compressed relations of s cannot
// travel.
func look(ctx context.Context, dst *tsdb.DB, s, t *tsdb.Hypertable, byRows string) (o *outlook, err error) {
	o = &outlook{db: dst, t: t, byRows: byRows != "" || slices.ContainsFunc(s.Copied(), func(c pg.Column) bool {
		return !c.Binary
	})}
	if !dst.Full || !t.CompressionEnabled {
		return o, nil
	}
	if o.dependents, err = t.Dependents(ctx, dst); err != nil {
		return nil, err
	}
	if o.mayBuild, o.role, err = tsdb.MayBuild(ctx, dst); err != nil {
		return nil, err
	}
	jobs, err := dst.Jobs(ctx, []*tsdb.Hypertable{t})
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(jobs, func(j *tsdb.Job) bool { return j.Kind == tsdb.Compression }); i >= 0 {
		o.policy = jobs[i]
	}
	if o.settled, err = tsdb.Settled(ctx, dst, t); err != nil {
		return nil, err
	}
	o.chunks, err = dst.Chunks(ctx, t.ID)
	return o, err
}

// certain reports whether a role that may not create relations will leave chunks
// uncompressed for certain: it cannot use the relations that the server makes either.
func (o *outlook) certain(ctx context.Context) (bool, error) {
	if skips, err := tsdb.Skips(ctx, o.db, o.t); skips || err != nil {
		return skips, err
	}
	if o.dependents.Aggregated && len(o.dependents.OnDelete) > 0 {
		return true, nil
	}
	if !o.byRows {
		return false, nil
	}
	if len(o.dependents.OnInsert) > 0 {
		return true, nil
	}
	keys, err := o.db.ForeignKeys(ctx, o.t.OID)
	return slices.ContainsFunc(keys, func(k pg.ForeignKey) bool { return !k.Allowed }), err
}

// of returns why the task's chunk, which is compressed on the source, will be left
// uncompressed; maybe if it depends.
func (o *outlook) of(ctx context.Context, t *task.Task, c Compressed) (why task.Loose, maybe bool, err error) {
	found := task.Obstacles{task.LooseApache: !o.db.Full, task.LooseDisabled: !o.t.CompressionEnabled,
		task.LooseDimensions: o.t.Unaligned(t.Slices) != "", task.LooseRange: t.Range.Partial}
	if found.First() == task.LooseApache || found.First() == task.LooseDisabled ||
		found.First() == task.LooseDimensions {
		return found.First(), false, nil
	}
	own, other := o.there(t)
	found[task.LooseExtents] = own == nil && other
	// The load compresses what it has left uncompressed, unless a policy will or
	// another session uses the chunk.
	settled := o.settled(t.Slices[0]) && o.db.SettingsPerChunk()
	if why := found.First(); why != "" {
		return why, why == task.LooseRange && settled, nil
	}
	if o.dependents.ReferencedKey != nil {
		held := false
		if own != nil {
			if err := o.db.QueryRow(ctx, "select exists (select from "+pg.Ident(own.Name.Schema, own.Name.Name)+")").
				Scan(&held); err != nil {
				return "", false, o.db.Wrap(err, "look into chunk %s", own.Name)
			}
		}
		if certain := o.byRows || c.ByRows || o.dependents.Aggregated || held; certain || c.Grown || !o.mayBuild {
			return task.LooseReferenced, !certain, nil
		}
	}
	if !o.mayBuild {
		certain, err := o.certain(ctx)
		return task.LoosePrivilege, !certain || settled, err
	}
	if own != nil && !o.db.ListsSparseIndexes() { // ≥ 2.22: a batch without values is no SQL NULL
		missing, err := o.db.Missing(ctx, own.OID)
		if err != nil {
			return "", false, err
		}
		if o.t.AnyNullable(missing) {
			return task.LooseDefault, true, nil
		}
	}
	return "", false, nil
}

// there returns the target's chunk of the task's extent, or whether another one is
// in its place.
func (o *outlook) there(t *task.Task) (own *tsdb.Chunk, other bool) {
	from, until := t.Slices[0].Bounds()
	for _, c := range o.chunks {
		if begins, ends := c.Slices[0].Bounds(); begins >= until || ends <= from {
			continue
		}
		switch {
		case c.SameSlices(t.Slices):
			return c, false
		case !c.Apart(t.Slices[1:]):
			other = true
		}
	}
	return nil, other
}

// helps is what the user can do about it.
func (o *outlook) helps(why task.Loose) string {
	table := pg.Ident(o.t.Name.Schema, o.t.Name.Name)
	if o.policy != nil && (why == task.LooseRange || why == task.LooseDefault || why == task.LooseRefused) {
		return fmt.Sprintf("%s compresses them later", o.policy)
	}
	later := fmt.Sprintf("compress them after the copy: a policy, or select %s(c, true) from %s(%s) c",
		pg.Ident(o.db.ExtensionSchema, "compress_chunk"), pg.Ident(o.db.ExtensionSchema, "show_chunks"),
		pg.Literal(table))
	switch why {
	case task.LooseApache:
		return "use the full edition on the target (timescaledb.license = timescale)"
	case task.LooseDisabled:
		return "alter table " + table + " set (timescaledb.compress, ...) as on the source, then run bf-stage again"
	case task.LooseDimensions:
		return "make the dimensions as on the source, or " + later
	case task.LooseExtents:
		return "drop the target's chunks there if the source has their rows, " +
			"and have it cut chunks as the source does; or " + later
	case task.LooseReferenced:
		return "drop the foreign keys to " + table + " for the time of the migration, or " + later
	case task.LoosePrivilege:
		return "grant create on schema _timescaledb_internal to " + o.role
	}
	return later
}

// loose returns what of s will be left uncompressed.
func (p *Plan) loose(ctx context.Context, dst *tsdb.DB, s, t *tsdb.Hypertable, byRows string) error {
	var o *outlook
	var all []*Loose
	for _, tk := range p.Tasks {
		c, ok := p.Compressed[tk.Chunk]
		if tk.Hypertable != s.Name || !ok {
			continue
		}
		var err error
		if o == nil {
			if o, err = look(ctx, dst, s, t, byRows); err != nil {
				return err
			}
		}
		why, maybe, err := o.of(ctx, tk, c)
		if err != nil {
			return err
		}
		if why == "" {
			continue
		}
		i := slices.IndexFunc(all, func(l *Loose) bool { return l.Why == why && l.Maybe == maybe })
		if i < 0 {
			i = len(all)
			all = append(all, &Loose{Of: s.Label(), Why: why, Maybe: maybe, Helps: o.helps(why)})
		}
		l := all[i]
		l.Chunks++
		l.Uncompressed += c.Uncompressed
		l.Compressed += c.Compressed
	}
	slices.SortStableFunc(all, func(a, b *Loose) int { return strings.Compare(string(a.Why), string(b.Why)) })
	p.Loose = append(p.Loose, all...)
	return nil
}
