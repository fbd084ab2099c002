package target

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

//go:embed privileges.sql
var privilegesSQL string

// relation is the compressed relation that a segment brings, made ready for
// this target: nothing of the stream's text gets into SQL but quoted names of
// columns; types and collations are compared with those of the target's own
// hypertable.
type relation struct {
	*tsdb.Relation
	keys   []pg.ForeignKey // the target's foreign keys, to be checked
	kept   []tsdb.RelationColumn
	drop   map[string]bool // columns that do not arrive
	sparse []tsdb.SparseIndex
	format string
	space  string // TABLESPACE clause: that of the chunk
	like   string // a relation of the server's to copy, where its columns cannot be named; else ""
	filled int64  // how many batches are in it
}

// arriving lists the columns that arrive.
func (r *relation) arriving() string {
	names := make([]string, len(r.kept))
	for i, c := range r.kept {
		names[i] = c.Name
	}
	return pg.Idents(names)
}

// fit says why the compressed relation cannot become one of the target; "" and
// the relation, when it can as far as its description shows.
func (l *Loader) fit(ctx context.Context, ht *tsdb.Hypertable, h *stream.Header, img *tsdb.Image) (*relation, string, error) {
	r := &relation{Relation: img.Relation, drop: map[string]bool{}}
	switch {
	case img.Relation == nil:
		return nil, "", errors.New("the stream brings a compressed relation and does not describe it")
	case !l.db.Full:
		return nil, "the target is the Apache edition", nil
	case !ht.CompressionEnabled:
		return nil, "compression is not enabled on the target", nil
	case !tsdb.AtLeast(l.db.TimescaleDB, h.Source.TimescaleDB):
		return nil, fmt.Sprintf("the target's TimescaleDB %s is older than the source's %s", l.db.TimescaleDB, h.Source.TimescaleDB), nil
	}
	if err := r.Valid(); err != nil {
		return nil, "", fmt.Errorf("description of the compressed relation: %w", err)
	}
	// The columns that the stream announces are those that it describes.
	part := h.Parts[0]
	if !slices.EqualFunc(part.Columns, r.Columns, func(a stream.Column, b tsdb.RelationColumn) bool { return a.Name == b.Name && a.Type == b.Type }) {
		return nil, "", errors.New("description of the compressed relation: its columns are not those that travel")
	}
	r.format = part.Format

	mine, encoding, err := l.db.RelationColumns(ctx, ht.OID)
	if err != nil {
		return nil, "", err
	}
	if encoding != r.Encoding {
		return nil, fmt.Sprintf("the databases' encodings differ (%s, %s)", r.Encoding, encoding), nil
	}
	byName, known := map[string]tsdb.RelationColumn{}, map[string]bool{tsdb.CompressedData: true, tsdb.BloomType: true, "integer": true}
	collations := map[string]bool{"": true}
	for _, c := range mine {
		byName[c.Name], known[c.Type], collations[c.Collation] = c, true, true
	}
	for _, c := range r.Columns {
		_, user := byName[c.Name]
		segment := slices.Contains(r.Settings.SegmentBy, c.Name)
		switch {
		case user:
			delete(byName, c.Name)
		case c.Index == nil && c.Name != "_ts_meta_count" && c.Name != "_ts_meta_sequence_num":
			return nil, fmt.Sprintf("the target has no column %q", c.Name), nil
		}
		switch {
		case !known[c.Type], user && !segment && c.Type != tsdb.CompressedData:
			return nil, fmt.Sprintf("type %s of column %q is not the target's", c.Type, c.Name), nil
		case !collations[c.Collation]:
			return nil, fmt.Sprintf("column %q has collation %s, the target another one", c.Name, c.Collation), nil
		}
		if c.Droppable() && (c.Stale() || h.Source.TimescaleDB != l.db.TimescaleDB) {
			// Another version hashes differently: its filters would hide rows.
			r.drop[c.Name] = true
			continue
		}
		r.kept = append(r.kept, c)
	}
	for name := range byName {
		return nil, fmt.Sprintf("column %q exists only on the target", name), nil
	}
	for _, i := range r.Indexes {
		for _, c := range i {
			if r.drop[c.Column] {
				return nil, fmt.Sprintf("an index of the compressed relation is on column %q", c.Column), nil
			}
		}
	}
	if r.format != stream.Text && len(r.drop) > 0 {
		return nil, "", errors.New("description of the compressed relation: bloom filters in binary format")
	}
	r.sparse = r.Sparse(r.drop)
	why, err := l.unseen(ctx, ht, r)
	return r, why, err
}

// settle finds out, before anything on the target is touched, how the
// compressed relation can get into the chunk: it rehearses that with an empty
// one in a transaction that is rolled back, or, where the role may not create
// one, has the server make it. A lane rehearses once for relations of one kind.
// It returns the chunk, which it makes when nothing speaks against it.
func (l *Loader) settle(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, r *relation, s *situation) (*tsdb.Chunk, error) {
	chunk, err := l.db.ChunkOf(ctx, ht, t.Slices)
	if err != nil {
		return nil, err
	}
	if chunk == nil {
		if s.unfit = ht.Unaligned(t.Slices); s.unfit != "" {
			return nil, nil
		}
	} else {
		if s.unfit, err = l.lossy(ctx, chunk, r); err != nil || s.unfit != "" {
			s.lossy = s.unfit != ""
			return nil, err
		}
	}
	var role string
	if s.mayBuild, role, err = l.db.MayBuild(ctx); err != nil {
		return nil, err
	}
	var misfit *misfitError
	if !s.mayBuild {
		var but string
		skips, err := l.db.Skips(ctx, ht)
		switch {
		case err != nil:
			return nil, err
		case skips:
			but = ", and the server would go on skipping the chunk by what it held before"
		case s.whyInto == "":
			if but, err = l.untold(ctx, ht); err != nil {
				return nil, err
			}
			if but != "" {
				but = ", and " + but
				break
			}
			chunk, err = l.native(ctx, ht, t, chunk, r)
			if s.same = err == nil; errors.As(err, &misfit) {
				but, err = ", and "+misfit.why, nil
			}
		}
		s.whyNot = "the role may not create relations in schema _timescaledb_internal" + but + "; this helps: grant create on schema _timescaledb_internal to " + role
		return chunk, err
	}
	kind, err := kind(ht, r)
	if err != nil {
		return nil, err
	}
	if l.rehearsed != kind {
		rehearsal := errors.New("a rehearsal")
		err = l.inChunk(ctx, end{ht: ht, task: t, chunk: chunk, r: r}, func(tx pgx.Tx, chunk *tsdb.Chunk, alter bool) error {
			if r.Broken() != "" { // in a twin's relation alone, then
				tw, err := l.twin(ctx, tx, ht, t, chunk)
				if err != nil {
					return err
				}
				if r, _, err = l.squeeze(ctx, tx, ht, tw); err != nil {
					return err
				}
			}
			rel, err := l.build(ctx, tx, ht, chunk, r)
			if err != nil {
				return err
			}
			if err := l.index(ctx, tx, rel, r); err != nil {
				return err
			}
			many, err := l.many(ctx, chunk)
			if err != nil {
				return err
			}
			if _, err := l.empty(ctx, tx, ht, t, chunk, many); err != nil {
				return err
			}
			if err := l.attach(ctx, tx, ht, chunk, rel, r, alter); err != nil {
				return err
			}
			return rehearsal
		})
		if err == rehearsal {
			l.rehearsed, err = kind, nil
		}
	}
	if err == nil && chunk == nil {
		err = l.briefly(ctx, func(pgx.Tx) (err error) {
			chunk, err = l.ensure(ctx, ht, t, nil)
			return err
		})
	}
	if errors.As(err, &misfit) {
		s.unfit = misfit.why
		return nil, nil
	}
	return chunk, err
}

// lossy says which NULLs the chunk would lose: a batch without a value of a column
// may be NULL as a whole, and that stands for the default where the column was
// added to the chunk with one.
func (l *Loader) lossy(ctx context.Context, chunk *tsdb.Chunk, r *relation) (why string, err error) {
	missing, err := l.db.Missing(ctx, chunk.OID)
	for _, column := range missing {
		if slices.Contains(r.Nulls, column) {
			return fmt.Sprintf("NULLs of column %q, which was added with a default to the target's chunk, would be lost", column), nil
		}
	}
	return "", err
}

// ensure returns the chunk of the task, which it makes if there is none, within
// the transaction that is open. A misfitError says that there can be none.
func (l *Loader) ensure(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk) (*tsdb.Chunk, error) {
	if chunk != nil {
		return chunk, nil
	}
	_, _, err := l.db.CreateChunk(ctx, ht, t.Slices)
	if inTheWay(err) {
		return nil, &misfitError{why: whyOther}
	}
	if err != nil {
		return nil, err
	}
	if chunk, err = l.db.ChunkOf(ctx, ht, t.Slices); err != nil {
		return nil, err
	}
	if chunk == nil {
		return nil, &misfitError{why: whyOther}
	}
	return chunk, nil
}

// inChunk runs f briefly with the chunk of e, which it makes if there is none.
// Only with alter may f alter the hypertable's settings: then that is locked for it
// from the beginning (see the order of locks).
func (l *Loader) inChunk(ctx context.Context, e end, f func(tx pgx.Tx, chunk *tsdb.Chunk, alter bool) error) error {
	return l.altering(e.ht, e.r, func(alter bool) error {
		return l.briefly(ctx, func(tx pgx.Tx) error {
			if err := l.lockHypertable(ctx, tx, e.ht, alter); err != nil {
				return err
			}
			c, err := l.ensure(ctx, e.ht, e.task, e.chunk)
			if err != nil {
				return err
			}
			return f(tx, c, alter)
		})
	})
}

// misfitError says why the target does not take the compressed relation.
type misfitError struct {
	why      string
	settings bool // it might with other settings of the hypertable
	lossy    bool // NULLs would become a default
}

func (e *misfitError) Error() string { return e.why }

// native has the server compress the chunk, which it makes if there is none, in
// a short transaction, with the settings of the source's. If its compressed
// relation is not the same as the source's, that is a misfitError and nothing
// has changed.
func (l *Loader) native(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, r *relation) (*tsdb.Chunk, error) {
	if chunk != nil && chunk.Status&tsdb.StatusCompressed != 0 {
		return chunk, l.matches(ctx, chunk, r)
	}
	if chunk != nil && chunk.Status != 0 {
		return chunk, &misfitError{why: "the target's chunk is frozen"}
	}
	if chunk != nil { // to compress them would keep the application out
		many, err := l.many(ctx, chunk)
		if err != nil {
			return nil, err
		}
		if many {
			return chunk, &misfitError{why: "the target's chunk has uncompressed rows"}
		}
	}
	var compressed *tsdb.Chunk
	err := l.inChunk(ctx, end{ht: ht, task: t, chunk: chunk, r: r}, func(tx pgx.Tx, chunk *tsdb.Chunk, alter bool) error {
		compressed = chunk
		return l.withSettings(ctx, tx, ht, chunk, r, alter, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "compress_chunk")+"($1::oid::regclass)", chunk.OID)
			return err
		})
	})
	return compressed, err
}

// build makes the compressed relation, empty and standing alone. On servers
// before 2.29 it has to live in _timescaledb_internal: their catalog looks for
// it there.
func (l *Loader) build(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk, r *relation) (rel string, err error) {
	var xid string
	var space *string
	if err := tx.QueryRow(ctx, "select pg_current_xact_id()::text, (select t.spcname from pg_class c join pg_tablespace t on t.oid = c.reltablespace where c.oid = $1)", chunk.OID).Scan(&xid, &space); err != nil {
		return "", err
	}
	if r.space = ""; space != nil {
		r.space = " tablespace " + pg.Ident(*space)
	}
	name := "compress" + chunk.Name.Name
	rel = pg.Ident("_timescaledb_internal", strings.ToValidUTF8(name[:min(len(name), 62-len(xid))], "")+"_"+xid)
	sql := r.definition(rel)
	if r.like != "" {
		sql = fmt.Sprintf("create table %s (like %s including storage including indexes) with (toast_tuple_target = 128)%s", rel, r.like, r.space)
	}
	if _, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return "", l.db.Wrap(err, "create the compressed relation of chunk %s", chunk.Name)
	}
	return rel, l.privileges(ctx, tx, ht, rel)
}

// definition is how the relation is created.
func (r *relation) definition(rel string) string {
	var defs, alters []string
	for _, c := range r.kept {
		def := pg.Ident(c.Name) + " " + c.Type
		if c.Collation != "" && !strings.HasPrefix(c.Collation, "default ") {
			schema, name, _ := strings.Cut(c.Collation, ".")
			def += " collate " + pg.Ident(schema, name)
		}
		defs = append(defs, def)
		alters = append(alters, fmt.Sprintf("alter %s set storage %s, alter %[1]s set statistics %[3]d", pg.Ident(c.Name), c.StorageSQL(), c.Statistics))
	}
	return fmt.Sprintf("create table %s (%s) with (toast_tuple_target = 128)%s; alter table %[1]s %[4]s",
		rel, strings.Join(defs, ", "), r.space, strings.Join(alters, ", "))
}

// privileges makes a relation belong to those that the hypertable belongs to.
func (l *Loader) privileges(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, rel string) error {
	rows, err := tx.Query(ctx, privilegesSQL, ht.OID, rel)
	if err != nil {
		return err
	}
	grants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	_, err = tx.Conn().PgConn().Exec(ctx, strings.Join(grants, ";")).ReadAll()
	return l.db.Wrap(err, "privileges of %s", rel)
}

// index makes the indexes of the compressed relation. Up to 2.13 they come with
// the attachment, from the table that all compressed relations are children of.
func (l *Loader) index(ctx context.Context, tx pgx.Tx, rel string, r *relation) error {
	if !l.db.SettingsPerChunk() || r.like != "" {
		return nil
	}
	for _, cols := range r.Indexes {
		var list []string
		for _, c := range cols {
			s := pg.Ident(c.Column)
			if c.Desc {
				s += " desc"
			}
			if c.NullsFirst {
				s += " nulls first"
			} else {
				s += " nulls last"
			}
			list = append(list, s)
		}
		if _, err := tx.Exec(ctx, "create index on "+rel+" ("+strings.Join(list, ", ")+")"+r.space); err != nil {
			return l.db.Wrap(err, "index of the compressed relation %s", rel)
		}
	}
	return nil
}

// attach makes rel the compressed relation of the chunk, which has none, with
// the settings that it was compressed with; see withSettings.
func (l *Loader) attach(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk, rel string, r *relation, alter bool) error {
	if !l.db.SettingsPerChunk() {
		var parent string
		if err := tx.QueryRow(ctx, `select format('%I.%I', p.schema_name, p.table_name) from _timescaledb_catalog.hypertable h
            join _timescaledb_catalog.hypertable p on p.id = h.compressed_hypertable_id where h.id = $1`, ht.ID).Scan(&parent); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "alter table "+rel+" inherit "+parent); err != nil {
			return l.misfit(err)
		}
	}
	// What attaching writes down for compression_chunk_size.
	var after [3]int64
	if err := tx.QueryRow(ctx, `select pg_table_size(c.oid) - s.toast, s.toast, pg_indexes_size(c.oid) from pg_class c
        cross join lateral (select coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0) as toast) s where c.oid = $1::text::regclass`, rel).Scan(&after[0], &after[1], &after[2]); err != nil {
		return err
	}
	return l.withSettings(ctx, tx, ht, chunk, r, alter, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "select "+l.db.Fn("create_compressed_chunk")+"($1::oid::regclass, $2::text::regclass, $3, $4, $5, $6, $7, $8, $9, $10)",
			chunk.OID, rel, r.Before[0], r.Before[1], r.Before[2], after[0], after[1], after[2], r.Rows, r.filled)
		return err
	})
}

// withSettings runs f, which makes chunk a compressed one: the server gives it
// the settings that the hypertable has at this moment. If those are not the
// settings of r, f is undone, and the misfitError says so. With alter, f is run
// while the hypertable has the settings of r; its own are put back at once. That
// locks the hypertable against everybody until the transaction ends: only the
// commit may follow.
func (l *Loader) withSettings(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk, r *relation, alter bool, f func(tx pgx.Tx) error) error {
	check := func(tx pgx.Tx) error {
		if err := f(tx); err != nil {
			return l.misfit(err)
		}
		c, err := l.db.Chunk(ctx, chunk.Name)
		if err != nil {
			return err
		}
		return l.matches(ctx, c, r)
	}
	if !alter {
		err := pgx.BeginFunc(ctx, tx, check)
		var misfit *misfitError
		if errors.As(err, &misfit) {
			misfit.settings = l.db.SettingsPerChunk()
		}
		return err
	}
	own, configured, err := l.ownSettings(ctx, ht)
	if err != nil {
		return err
	}
	table := pg.Ident(ht.Name.Schema, ht.Name.Name)
	exec := func(tx pgx.Tx, sql string) error {
		_, err := tx.Exec(ctx, sql)
		return l.misfit(err)
	}
	return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		want := r.Settings
		if want.SegmentBy == nil {
			want.SegmentBy = []string{}
		}
		if err := exec(tx, "alter table "+table+" set ("+l.db.SettingsSQL(&want, r.sparse)+")"); err != nil {
			return err
		}
		if err := check(tx); err != nil {
			return err
		}
		if l.db.ListsSparseIndexes() {
			if err := exec(tx, "alter table "+table+" reset (timescaledb.compress_index)"); err != nil {
				return err
			}
		}
		if own.OrderBy == nil || own.SegmentBy == nil && l.db.ListsSparseIndexes() {
			if err := exec(tx, "alter table "+table+" reset (timescaledb.compress_segmentby, timescaledb.compress_orderby)"); err != nil {
				return err
			}
		}
		if own.OrderBy != nil || own.SegmentBy != nil || len(configured) > 0 {
			if err := exec(tx, "alter table "+table+" set ("+l.db.SettingsSQL(own, configured)+")"); err != nil {
				return err
			}
		}
		now, err := l.db.HypertableSettings(ctx, ht)
		if err != nil {
			return err
		}
		if now == nil || !now.Same(own) {
			return &misfitError{why: "the compression settings of the target's hypertable could not be put back as they were"}
		}
		return nil
	})
}

// ownSettings returns the settings of the hypertable, nil for none, and the sparse
// indexes that the user asked for.
func (l *Loader) ownSettings(ctx context.Context, ht *tsdb.Hypertable) (own *tsdb.Settings, configured []tsdb.SparseIndex, err error) {
	if own, err = l.db.HypertableSettings(ctx, ht); err != nil || own == nil {
		return nil, nil, err
	}
	if configured, err = own.Sparse(true); err != nil {
		err = &misfitError{why: err.Error()}
	}
	return own, configured, err
}

// misfit turns a refusal of the server into the reason why the relation does
// not fit; a lock that was not had is none, nor is a lost connection.
func (l *Loader) misfit(err error) error {
	if code := pg.Code(err); code == "" || code == pg.LockNotAvailable || strings.HasPrefix(code, "57") || strings.HasPrefix(code, "40") || strings.HasPrefix(code, "53") {
		return err
	}
	return &misfitError{why: "the target refuses it: " + pg.Describe(err)}
}

// matches reports by a misfitError whether a compressed chunk's relation and
// settings are those of r.
func (l *Loader) matches(ctx context.Context, c *tsdb.Chunk, r *relation) error {
	if c == nil || c.RelationOID == 0 {
		return &misfitError{why: "the target's chunk has no compressed relation"}
	}
	have, _, err := l.db.RelationColumns(ctx, c.RelationOID)
	if err != nil {
		return err
	}
	if differs, same := tsdb.SameColumns(r.kept, have); !same {
		return &misfitError{why: "the target's compressed relation has " + differs}
	}
	s, err := l.db.ChunkSettings(ctx, c)
	if err != nil {
		return err
	}
	if s == nil || !s.SameLayout(&r.Settings) {
		return &misfitError{why: "the target's chunk has other compression settings"}
	}
	if l.db.ListsSparseIndexes() {
		sparse, err := s.Sparse(false)
		if err != nil {
			return &misfitError{why: err.Error()}
		}
		if !tsdb.SameSparse(sparse, r.sparse) {
			return &misfitError{why: "the target's chunk has other sparse indexes"}
		}
	}
	return nil
}

// batches copies the compressed relation of the stream into rel, checks what the
// batches refer to, and returns the part that comes next; more are further
// options of COPY.
func (l *Loader) batches(ctx context.Context, tx pgx.Tx, r *stream.Reader, chunk *tsdb.Chunk, data io.Reader, rel string, rr *relation, more ...string) (beside *stream.Part, bytes int64, err error) {
	if len(rr.drop) > 0 {
		var drop []bool
		for _, c := range rr.Columns {
			drop = append(drop, rr.drop[c.Name])
		}
		data = &fieldFilter{r: bufio.NewReaderSize(data, peekRow), drop: drop}
	}
	options := strings.Join(append([]string{"format " + rr.format}, more...), ", ")
	stored, err := l.db.CopyIn(ctx, data, fmt.Sprintf("copy %s (%s) from stdin (%s)", rel, rr.arriving(), options))
	if err != nil {
		return nil, 0, l.db.Wrap(err, "copy into %s", rel)
	}
	sent, bytes := r.Part()
	if rr.filled = stored; stored != sent {
		return nil, 0, &pg.Error{Side: pg.Target, Object: rel, Err: fmt.Errorf("stored %d of %d batches", stored, sent)}
	}
	if beside, err = r.NextPart(); err != nil {
		return nil, 0, err
	}
	return beside, bytes, l.refer(ctx, tx, chunk, rel, rr.keys)
}

// fieldFilter takes columns out of a COPY in text format. Tabs and line ends
// inside of values travel escaped: the bytes themselves only separate.
type fieldFilter struct {
	r     *bufio.Reader
	drop  []bool
	field int // of the line
	kept  int // fields of the line handed out
	buf   []byte
	out   []byte // of buf, not handed out yet
}

func (f *fieldFilter) Read(p []byte) (int, error) {
	for len(f.out) == 0 {
		if _, err := f.r.Peek(1); err != nil {
			return 0, err
		}
		in, _ := f.r.Peek(f.r.Buffered())
		f.buf = f.buf[:0]
		for rest := in; len(rest) > 0; {
			end := bytes.IndexAny(rest, "\t\n")
			piece := rest
			if end >= 0 {
				piece = rest[:end]
			}
			keep := f.field < len(f.drop) && !f.drop[f.field]
			if keep {
				f.buf = append(f.buf, piece...)
			}
			if end < 0 {
				break
			}
			if rest[end] == '\n' {
				f.buf = append(f.buf, '\n')
				f.field, f.kept = 0, 0
			} else {
				if keep {
					f.kept++
				}
				f.field++
				if f.kept > 0 && f.field < len(f.drop) && !f.drop[f.field] {
					f.buf = append(f.buf, '\t')
				}
			}
			rest = rest[end+1:]
		}
		f.r.Discard(len(in))
		f.out = f.buf
	}
	n := copy(p, f.out)
	f.out = f.out[n:]
	return n, nil
}
