package tsdb

import (
	"context"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

// IsCompressed reports whether the chunk has a compressed relation, with or
// without batches in it.
func (c *Chunk) IsCompressed() bool { return c.Status&StatusCompressed != 0 }

// IsFrozen reports whether the server forbids changes to the chunk.
func (c *Chunk) IsFrozen() bool { return c.Status&StatusFrozen != 0 }

// IsPartial reports whether a compressed chunk is marked to have rows beside its
// batches: without the mark no query looks for them.
func (c *Chunk) IsPartial() bool { return c.Status&StatusPartial != 0 }

// Quoted is the chunk's name for SQL.
func (c *Chunk) Quoted() string { return pg.Ident(c.Name.Schema, c.Name.Name) }

// Compress has the server compress a chunk. It locks the application out of the
// chunk until the transaction ends.
func (c *Chunk) Compress(ctx context.Context, db *DB) error {
	_, err := db.Exec(ctx, "select "+pg.Ident(db.ExtensionSchema, "compress_chunk")+"($1::oid::regclass)", c.OID)
	return db.Wrap(err, "compress chunk %s", c.Name)
}

// CompressAgain is Compress of a chunk that may have batches and rows beside them.
func (c *Chunk) CompressAgain(ctx context.Context, db *DB) error {
	_, err := db.Exec(ctx, "select "+pg.Ident(db.ExtensionSchema, "compress_chunk")+"($1::oid::regclass, true)", c.OID)
	return db.Wrap(err, "compress chunk %s", c.Name)
}

// Decompress has the server decompress a chunk, under the same lock.
func (c *Chunk) Decompress(ctx context.Context, db *DB) error {
	_, err := db.Exec(ctx, "select "+pg.Ident(db.ExtensionSchema, "decompress_chunk")+"($1::oid::regclass)", c.OID)
	return db.Wrap(err, "decompress chunk %s", c.Name)
}

// CompressSQL is the statement with which a user compresses a chunk.
func (c *Chunk) CompressSQL(db *DB) string { return callSQL(db, "compress_chunk", c) }

// DecompressSQL is the statement with which a user decompresses a chunk.
func (c *Chunk) DecompressSQL(db *DB) string { return callSQL(db, "decompress_chunk", c) }

func callSQL(db *DB, function string, c *Chunk) string {
	return "select " + pg.Ident(db.ExtensionSchema, function) + "(" + pg.Literal(c.Quoted()) + ")"
}

// Freeze forbids changes to a chunk.
func (c *Chunk) Freeze(ctx context.Context, db *DB) error {
	_, err := db.Exec(ctx, "select "+db.Fn("freeze_chunk")+"($1::oid::regclass)", c.OID)
	return db.Wrap(err, "freeze chunk %s", c.Name)
}

// Unfreeze allows changes to a chunk that is frozen.
func (c *Chunk) Unfreeze(ctx context.Context, db *DB) error {
	if !c.IsFrozen() {
		return nil
	}
	_, err := db.Exec(ctx, "select "+db.Fn("unfreeze_chunk")+"($1::oid::regclass)", c.OID)
	return db.Wrap(err, "unfreeze chunk %s", c.Name)
}

// HasBatches reports whether there are batches in the compressed relation of a
// chunk. The restored dump of a schema leaves compressed chunks without any.
func (c *Chunk) HasBatches(ctx context.Context, db *DB) (some bool, err error) {
	rel, err := db.RelationName(ctx, c.RelationOID)
	if err == nil {
		err = db.QueryRow(ctx, "select exists (select from only "+rel+")").Scan(&some)
	}
	return some, db.Wrap(err, "compressed relation of chunk %s", c.Name)
}

// ReadsBatchesOf reports whether this server reads what that version of
// TimescaleDB has compressed: its own and what is older.
func (db *DB) ReadsBatchesOf(version string) bool { return AtLeast(db.TimescaleDB, version) }

// Trusts reports whether this server may use what that version wrote into a column
// of a compressed relation. Bloom filters of another version hash differently and
// would hide rows.
func (c *RelationColumn) Trusts(db *DB, version string) bool {
	return !c.Droppable() || !c.Stale() && version == db.TimescaleDB
}

// InsertsDecompress reports whether an insert into a chunk with a unique key
// decompresses every batch that might have the key (up to 2.16).
func (db *DB) InsertsDecompress() bool { return !AtLeast(db.TimescaleDB, "2.17") }

// CopyCrashesBesideBatches reports whether the server crashes when COPY puts rows
// beside batches in which unique keys are looked for, and row triggers fire. INSERT does
// not.
// ≤ 2.13: it may; 2.11 does.
func (db *DB) CopyCrashesBesideBatches() bool { return !db.SettingsPerChunk() }

// CrashingIndex returns an index on an expression of the hypertable where the server
// crashes over it when it decompresses rows, by decompress_chunk or for a statement; nil
// elsewhere.
// ≤ 2.13: it may; 2.11 does.
func CrashingIndex(ctx context.Context, db *DB, h *Hypertable) (index *string, err error) {
	if db.SettingsPerChunk() {
		return nil, nil
	}
	err = db.QueryRow(ctx, `select (select indexrelid::regclass::text from pg_index
            where indrelid = $1 and indexprs is not null limit 1)`, h.OID).Scan(&index)
	return index, db.Wrap(err, "indexes of %s", h.Name)
}

// UnlimitDecompression lets statements decompress as many batches as they have to: those
// of the transaction, or of the whole session.
func (db *DB) UnlimitDecompression(ctx context.Context, session bool) error {
	_, err := db.Exec(ctx, `select set_config(name, '0', not $1) from pg_settings
        where name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'`, session)
	return db.Wrap(err, "limit of decompression")
}

// Built is a compressed relation that is to become a chunk's.
type Built struct {
	*Relation
	Kept    []RelationColumn // those of its columns that it has here
	Sparse  []SparseIndex    // and the sparse indexes that they make up
	Name    string           // quoted
	Batches int64            // how many it holds
	Like    string           // a relation of the server's with the same columns, where those cannot be named
	prefix  string           // of its name and those of its indexes, until NameLike
	space   string           // TABLESPACE clause: that of the chunk
	after   [3]int64         // its sizes: heap, toast, indexes
	parent  string           // ≤ 2.13: the table that it has to be a child of
	indexes []index
}

// Arriving lists the columns that it has here.
func (b *Built) Arriving() string {
	names := make([]string, len(b.Kept))
	for i, c := range b.Kept {
		names[i] = c.Name
	}
	return pg.Idents(names)
}

// Build makes the compressed relation b, empty and not attached, for the chunk; nil for
// one that is still to be made.
// ≤ 2.28: the catalog looks for it in _timescaledb_internal only.
func (b *Built) Build(ctx context.Context, db *DB, h *Hypertable, c *Chunk) error {
	oid, name := h.OID, h.Name
	if c != nil {
		oid, name = c.OID, c.Name
	}
	b.prefix = clip("compress"+name.Name, 40) + fmt.Sprintf("_%016x", rand.Uint64())
	b.Name = pg.Ident("_timescaledb_internal", b.prefix)
	var space string
	var grants []string
	var ask pgx.Batch
	ask.Queue(`select coalesce((select t.spcname from pg_class c
            join pg_tablespace t on t.oid = c.reltablespace where c.oid = $1), '')`, oid).QueryRow(pg.Into(&space))
	if !db.SettingsPerChunk() {
		ask.Queue(compressedHypertableSQL, h.ID).QueryRow(pg.Into(&b.parent))
	}
	pg.AskGrants(&ask, h.OID, b.Name, &grants)
	if err := db.SendBatch(ctx, &ask).Close(); err != nil {
		return db.Wrap(err, "look at %s", name)
	}
	if b.space = ""; space != "" {
		b.space = " tablespace " + pg.Ident(space)
	}
	sql := b.definition()
	if b.Like != "" {
		sql = fmt.Sprintf("create table %s (like %s including storage including indexes) "+
			"with (toast_tuple_target = 128)%s",
			b.Name, b.Like, b.space)
	}
	_, err := db.Exec(ctx, strings.Join(append([]string{sql}, grants...), "; "))
	return db.Wrap(err, "create the compressed relation of chunk %s", name)
}

// definition is how the relation is created.
func (b *Built) definition() string {
	var defs, alters []string
	for _, c := range b.Kept {
		def := pg.Ident(c.Name) + " " + c.Type
		if c.Collation != "" && !strings.HasPrefix(c.Collation, "default ") {
			schema, name, _ := strings.Cut(c.Collation, ".")
			def += " collate " + pg.Ident(schema, name)
		}
		defs = append(defs, def)
		storage := c.StorageSQL()
		if slices.Contains(b.Incompressible, c.Name) {
			storage = "external" // until Ready
		}
		alters = append(alters, fmt.Sprintf("alter %s set storage %s", pg.Ident(c.Name), storage))
		if c.Statistics >= 0 {
			alters = append(alters, fmt.Sprintf("alter %s set statistics %d", pg.Ident(c.Name), c.Statistics))
		}
	}
	return fmt.Sprintf("create table %s (%s) with (toast_tuple_target = 128)%s; alter table %[1]s %[4]s",
		b.Name, strings.Join(defs, ", "), b.space, strings.Join(alters, ", "))
}

// storageSQL gives the columns whose values TOAST cannot compress the storage that they
// have on the source. During the COPY it is another one: to try and compress each value
// again would take longer than all the rest of the COPY.
func (b *Built) storageSQL() (sql string) {
	for _, c := range b.Kept {
		if slices.Contains(b.Incompressible, c.Name) {
			sql += fmt.Sprintf("alter table %s alter %s set storage %s; ", b.Name, pg.Ident(c.Name), c.StorageSQL())
		}
	}
	return sql
}

// Refill copies all batches of a relation like b into it, whatever the order of its
// columns, without naming them.
func (b *Built) Refill(ctx context.Context, db *DB, from string) error {
	var oid uint32
	if err := db.QueryRow(ctx, "select $1::text::regclass::oid", b.Name).Scan(&oid); err != nil {
		return db.Wrap(err, "copy into %s", b.Name)
	}
	into, _, err := RelationColumns(ctx, db, oid)
	if err != nil {
		return err
	}
	var columns []string
	for _, c := range into {
		columns = append(columns, b.NumberOf(c.Name))
	}
	tag, err := db.Exec(ctx, fmt.Sprintf("insert into %s select %s from %s",
		b.Name, strings.Join(columns, ", "), b.Numbered(from)))
	b.Batches = tag.RowsAffected()
	return db.Wrap(err, "copy into %s", b.Name)
}

// Index makes the indexes of the compressed relation.
func (b *Built) Index(ctx context.Context, db *DB) error {
	_, err := db.Exec(ctx, b.indexSQL(db))
	return db.Wrap(err, "index of the compressed relation %s", b.Name)
}

// indexSQL is how the indexes are made.
// ≤ 2.13: attaching makes them, from the table that all compressed relations are children of.
func (b *Built) indexSQL(db *DB) string {
	if b.indexes = nil; !db.SettingsPerChunk() || b.Like != "" {
		return ""
	}
	var sql []string
	for n, cols := range b.Indexes {
		name := fmt.Sprint(b.prefix, "_", n)
		quoted := pg.Ident("_timescaledb_internal", name)
		i := index{name: &quoted}
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
			list, i.columns = append(list, s), append(i.columns, c.Column)
		}
		b.indexes = append(b.indexes, i)
		sql = append(sql, "create index "+pg.Ident(name)+" on "+b.Name+" ("+strings.Join(list, ", ")+")"+b.space)
	}
	return strings.Join(sql, "; ")
}

var (
	//go:embed sizes.sql
	sizesSQL string
	//go:embed compressed_hypertable.sql
	compressedHypertableSQL string
	//go:embed scratch.sql
	scratchSQL string
)

// Ready indexes, analyzes and measures the filled relation: what follows comes when the
// chunk is locked, and asks for nothing that can be known before.
func (b *Built) Ready(ctx context.Context, db *DB) (err error) {
	if _, err := db.Exec(ctx, b.storageSQL()+b.indexSQL(db)+"; analyze "+b.Name); err != nil {
		return db.Wrap(err, "index and analyze %s", b.Name)
	}
	if err := db.QueryRow(ctx, sizesSQL, b.Name).Scan(&b.after[0], &b.after[1], &b.after[2]); err != nil {
		return db.Wrap(err, "sizes of %s", b.Name)
	}
	if b.Like != "" {
		b.indexes, err = indexesOf(ctx, db, b.Name)
	}
	return err
}

// Scratch makes a hypertable of the table of a blueprint like h, with the primary
// dimension alone, and one chunk with the given slice; nil where the server makes
// another one.
func (b *Blueprint) Scratch(ctx context.Context, db *DB, h *Hypertable, s task.Slice) (*Hypertable, *Chunk, error) {
	if _, err := db.Exec(ctx, strings.Join(b.Table, ";")); err != nil {
		return nil, nil, db.Wrap(err, "create table %s", b.Name)
	}
	d := h.Dimensions[0]
	from, until := s.Bounds()
	args := fmt.Sprintf("%s::regclass, %s::name, chunk_time_interval => %d::bigint, create_default_indexes => false",
		pg.Literal(b.Name), pg.Literal(d.Column), until-from)
	if !d.Func.IsZero() {
		args += ", time_partitioning_func => " + pg.Literal(pg.Ident(d.Func.Schema, d.Func.Name)) + "::regproc"
	}
	if _, err := db.Exec(ctx, "select "+pg.Ident(db.ExtensionSchema, "create_hypertable")+"("+args+")"); err != nil {
		return nil, nil, db.Wrap(err, "create hypertable %s", b.Name)
	}
	scratch := *h
	scratch.Dimensions = h.Dimensions[:1]
	if err := db.QueryRow(ctx, scratchSQL, b.Name).Scan(&scratch.ID, &scratch.OID, &scratch.Name.Schema,
		&scratch.Name.Name); err != nil {
		return nil, nil, db.Wrap(err, "hypertable %s", b.Name)
	}
	if _, _, err := scratch.CreateChunk(ctx, db, []task.Slice{s}); err != nil {
		return nil, nil, err
	}
	c, err := scratch.ChunkOf(ctx, db, []task.Slice{s})
	return &scratch, c, err
}

// OwnSettings returns the settings of a hypertable, nil for none, and those of its
// sparse indexes that the user asked for.
func OwnSettings(ctx context.Context, db *DB, h *Hypertable) (own *Settings, configured []SparseIndex, err error) {
	if own, err = HypertableSettings(ctx, db, h); err != nil || own == nil {
		return nil, nil, err
	}
	configured, err = own.Sparse(true)
	return own, configured, db.Wrap(err, "compression settings of %s", h.Name)
}

// SetSettings gives a hypertable these compression settings.
func SetSettings(ctx context.Context, db *DB, h *Hypertable, s *Settings, sparse []SparseIndex) error {
	_, err := db.Exec(ctx, s.SetSQL(db, h, sparse))
	return db.Wrap(err, "compression settings of %s", h.Name)
}

// Foreign says which column of the relation cannot be one of a compressed relation
// of the hypertable with these columns; "" for none.
func (r *Relation) Foreign(mine []RelationColumn) string {
	byName, collations := map[string]RelationColumn{}, map[string]bool{"": true}
	known := map[string]bool{CompressedData: true, BloomType: true, "integer": true}
	for _, c := range mine {
		byName[c.Name], known[c.Type], collations[c.Collation] = c, true, true
	}
	for _, c := range r.Columns {
		_, user := byName[c.Name]
		segment := slices.Contains(r.Settings.SegmentBy, c.Name)
		delete(byName, c.Name)
		switch {
		case !user && c.Index == nil && c.Name != metaPrefix+"count" && c.Name != metaPrefix+"sequence_num":
			return fmt.Sprintf("the target has no column %q", c.Name)
		case !known[c.Type], user && !segment && c.Type != CompressedData:
			return fmt.Sprintf("type %s of column %q is not the target's", c.Type, c.Name)
		case !collations[c.Collation]:
			return fmt.Sprintf("column %q has collation %s, the target another one", c.Name, c.Collation)
		}
	}
	for name := range byName {
		return fmt.Sprintf("column %q exists only on the target", name)
	}
	return ""
}

// SameKind reports whether two relations have the same columns, indexes and
// settings.
func (r *Relation) SameKind(o *Relation) bool {
	return reflect.DeepEqual(r.Columns, o.Columns) && reflect.DeepEqual(r.Indexes, o.Indexes) &&
		r.Settings.Same(&o.Settings)
}
