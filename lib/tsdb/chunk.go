package tsdb

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed chunks.sql
	chunksSQL string
	//go:embed chunks_in.sql
	chunksInSQL string
)

// chunksOf fills in the parts of chunks.sql that depend on the catalogs: where they
// keep the names of chunks, and of their compressed relations, has changed.
func chunksOf(columns map[string]bool) *strings.Replacer {
	class := `join lateral (select * from pg_class where relname = c.table_name
            and relnamespace = (select oid from pg_namespace where nspname = c.schema_name) offset 0) cl on true`
	named := "c.schema_name = $1 and c.table_name = $2"
	if columns["chunk.relid"] {
		class = "join lateral (select * from pg_class where oid = c.relid offset 0) cl on true"
		named = "c.relid = to_regclass(format('%I.%I', $1::text, $2::text))"
	}
	compressed := `left join lateral (select to_regclass(format('%I.%I', zc.schema_name, zc.table_name)) as relid
            from _timescaledb_catalog.chunk zc where zc.id = c.compressed_chunk_id) z on true`
	if columns["compression_settings.compress_relid"] {
		compressed = `left join lateral (select cs.compress_relid as relid
            from _timescaledb_catalog.compression_settings cs where cs.relid = cl.oid) z on true`
	}
	dropped := ""
	if columns["chunk.dropped"] {
		dropped = "and not c.dropped"
	}
	return strings.NewReplacer("{class}", class, "{compressed}", compressed, "{dropped}", dropped, "{named}", named)
}

// chunksIn lists the chunks whose slice of a dimension satisfies a condition on $3
// and $4.
func chunksIn(ctx context.Context, db *DB, h *Hypertable, r task.Range, condition string) ([]*Chunk, error) {
	return queryChunks(ctx, db, strings.Replace(chunksInSQL, "{range}", condition, 1), h.ID, r.Column, r.From, r.Until)
}

// The bits of a chunk's status.
const (
	StatusCompressed = 1
	StatusUnordered  = 2
	StatusFrozen     = 4
	StatusPartial    = 8
)

// Chunk is a chunk and its state.
type Chunk struct {
	ID          int32
	Hypertable  int32 // id of its hypertable
	Name        task.Name
	OID         uint32
	Status      int32
	Slices      []task.Slice // primary dimension first; Hash is not set
	Rows        int64        // the planner's estimate
	Bytes       int64        // of the relations that travel, without indexes
	RelationOID uint32       // of its compressed relation, 0 for none
	// Rewritten is set when the chunk was rewritten (compressed, truncated)
	// after the snapshot that this was read in was taken: a COPY in it would
	// read nothing.
	Rewritten bool
	AM        string // access method
}

// Chunks lists the chunks of hypertables.
func (db *DB) Chunks(ctx context.Context, hypertables ...int32) ([]*Chunk, error) {
	return queryChunks(ctx, db, "c.hypertable_id = any($1)", hypertables)
}

// Chunk returns the chunk of that name, nil if there is none.
func (db *DB) Chunk(ctx context.Context, name task.Name) (*Chunk, error) {
	cs, err := queryChunks(ctx, db, "{named}", name.Schema, name.Name)
	if err != nil || len(cs) == 0 {
		return nil, err
	}
	return cs[0], nil
}

// askChunk asks for the chunk of that name; nil if there is none.
func askChunk(db *DB, ask *pgx.Batch, name task.Name, to **Chunk) {
	ask.Queue(chunksWhere(db, "{named}"), name.Schema, name.Name).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scanChunk)
		if *to = nil; len(found) > 0 {
			*to = found[0]
		}
		return err
	})
}

// WithHypertable returns the chunk of that name and its hypertable; nil for what is not
// there.
func WithHypertable(ctx context.Context, db *DB, name task.Name) (c *Chunk, h *Hypertable, err error) {
	var ask pgx.Batch
	var v Version
	askChunk(db, &ask, name, &c)
	askVersion(db, &ask, &v, db.chunks.Replace("h.id = (select c.hypertable_id from _timescaledb_catalog.chunk c "+
		"where {named})"), name.Schema, name.Name)
	if err := db.SendBatch(ctx, &ask).Close(); err != nil || c == nil {
		return nil, nil, db.Wrap(err, "look up chunk %s", name)
	}
	h, err = v.Hypertable(ctx, db)
	return c, h, err
}

// ChunkOf returns the chunk of the hypertable that has exactly these slices,
// nil if there is none.
func (h *Hypertable) ChunkOf(ctx context.Context, db *DB, want []task.Slice) (c *Chunk, err error) {
	var ask pgx.Batch
	AskChunkOf(db, &ask, h, want, &c)
	return c, db.Wrap(db.SendBatch(ctx, &ask).Close(), "list chunks")
}

// AskChunkOf asks for it.
func AskChunkOf(db *DB, ask *pgx.Batch, h *Hypertable, want []task.Slice, to **Chunk) {
	sql := strings.Replace(chunksInSQL, "{range}",
		"ds.range_start = $3::text::bigint and ds.range_end = $4::text::bigint", 1)
	ask.Queue(chunksWhere(db, sql), h.ID, want[0].Column, want[0].From, want[0].Until).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scanChunk)
		*to = nil
		for _, c := range found {
			if c.SameSlices(want) {
				*to = c
			}
		}
		return err
	})
}

// ChunksIn lists the chunks of the hypertable that may hold rows of the range,
// oldest first.
func (h *Hypertable) ChunksIn(ctx context.Context, db *DB, r task.Range) ([]*Chunk, error) {
	cs, err := chunksIn(ctx, db, h, r, "ds.range_start < $4::text::bigint and ds.range_end > $3::text::bigint")
	slices.SortFunc(cs, func(a, b *Chunk) int { return cmp.Compare(a.ID, b.ID) })
	return cs, err
}

// Heirs lists the chunks of the task's hypertable that may hold rows of the task. Where
// no hypertable has the name, it is one whose prefix the name of the task's chunk begins
// with: the prefix has the hypertable's number, and survives a renaming.
func Heirs(ctx context.Context, db *DB, t *task.Task) ([]*Chunk, error) {
	var hs []*Hypertable
	h, err := db.HypertableFor(ctx, t.Hypertable, t.View)
	if h != nil {
		hs = append(hs, h)
	} else if err == nil {
		hs, err = queryHypertables(ctx, db, "starts_with($1, h.associated_table_prefix || '_')", t.Chunk.Name)
	}
	if err != nil {
		return nil, err
	}
	var heirs []*Chunk
	for _, h := range hs {
		r := t.Range
		r.Column = h.Dimensions[0].Column
		cs, err := h.ChunksIn(ctx, db, r)
		if err != nil {
			return nil, err
		}
		heirs = append(heirs, slices.DeleteFunc(cs, func(c *Chunk) bool { return c.Apart(t.Slices[1:]) })...)
	}
	return heirs, nil
}

// Apart reports whether no row of the chunk can be in these slices.
func (c *Chunk) Apart(of []task.Slice) bool {
	outside := func(bound, from string) bool {
		a, err := task.Bound(bound)
		b, err2 := task.Bound(from)
		return err == nil && err2 == nil && a <= b
	}
	for _, a := range of {
		for _, b := range c.Slices {
			if a.Column == b.Column && (outside(a.Until, b.From) || outside(b.Until, a.From)) {
				return true
			}
		}
	}
	return false
}

func queryChunks(ctx context.Context, db *DB, which string, args ...any) ([]*Chunk, error) {
	if db.Plain() {
		return nil, nil
	}
	rows, err := db.Query(ctx, chunksWhere(db, which), args...)
	if err != nil {
		return nil, db.Wrap(err, "list chunks")
	}
	cs, err := pgx.CollectRows(rows, scanChunk)
	return cs, db.Wrap(err, "list chunks")
}

// chunksWhere is the query for the chunks that satisfy a condition.
func chunksWhere(db *DB, which string) string {
	return db.chunks.Replace(strings.Replace(chunksSQL, "{which}", which, 1))
}

func scanChunk(r pgx.CollectableRow) (*Chunk, error) {
	var c Chunk
	var cols []string
	var from, until []int64
	err := r.Scan(&c.ID, &c.Hypertable, &c.Name.Schema, &c.Name.Name, &c.OID, &c.Status, &cols, &from, &until,
		&c.Rows, &c.Bytes, &c.RelationOID, &c.Rewritten, &c.AM)
	for i := range cols {
		c.Slices = append(c.Slices, task.Slice{Column: cols[i], From: task.FormatBound(from[i]),
			Until: task.FormatBound(until[i])})
	}
	return &c, err
}

// SameSlices reports whether a chunk has the extent that a record says; the
// other dimensions may have been added in another order.
func (c *Chunk) SameSlices(want []task.Slice) bool {
	if len(c.Slices) != len(want) {
		return false
	}
	for _, w := range want {
		if !slices.ContainsFunc(c.Slices, func(s task.Slice) bool {
			return s.Column == w.Column && s.From == w.From && s.Until == w.Until
		}) {
			return false
		}
	}
	return true
}

// AskSkewed asks whether a column of a dimension has another number in the chunk
// than in the hypertable: a column was dropped before the chunk was made.
// TimescaleDB (2.28 and 2.29 at least) then checks the wrong column, or none
// that exists, when rows are written to the chunk directly.
func AskSkewed(ask *pgx.Batch, c *Chunk, h *Hypertable, skewed *bool) {
	columns := make([]string, len(h.Dimensions))
	for i, d := range h.Dimensions {
		columns[i] = d.Column
	}
	ask.Queue(`select exists (
            select from pg_attribute p join pg_attribute c on c.attrelid = $2 and c.attname = p.attname
            where p.attrelid = $1 and p.attname = any($3) and p.attnum <> c.attnum)`, h.OID, c.OID, columns).
		QueryRow(pg.Into(skewed))
}

// CreateChunk makes an empty chunk with these slices and returns its name;
// created is false when it was there already. Run it in a transaction of its
// own: it locks the hypertable against other chunk creation until commit. The
// Apache edition refuses it.
func (h *Hypertable) CreateChunk(ctx context.Context, db *DB, want []task.Slice) (
	name task.Name, created bool, err error) {
	err = db.QueryRow(ctx, "select schema_name, table_name, created from "+db.Fn("create_chunk")+
		"($1::oid::regclass, $2::text::jsonb)", h.OID, slicesJSON(want)).Scan(&name.Schema, &name.Name, &created)
	return name, created, db.Wrap(err, "create a chunk of %s", h.Name)
}

// CreateChunkSQL makes one, and returns the OID of the chunk.
func CreateChunkSQL(db *DB, h *Hypertable, want []task.Slice) string {
	return fmt.Sprintf("select pg_catalog.format('%%I.%%I', schema_name, table_name)::pg_catalog.regclass::oid from "+
		"%s(%d::oid::regclass, %s::jsonb)", db.Fn("create_chunk"), h.OID, pg.Literal(slicesJSON(want)))
}

// ChunkInTheWay reports whether create_chunk failed because of another chunk: one of
// another extent, or (2.11 to 2.14) the leftover of a dropped one, which is "not
// found".
func ChunkInTheWay(err error) bool {
	switch pg.Code(err) {
	case "TS503", "TS003", pg.UndefinedObject:
		return true
	}
	return false
}

// slicesJSON formats slices for create_chunk.
func slicesJSON(slices []task.Slice) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range slices {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:[%s,%s]", jsonString(s.Column), s.From, s.Until)
	}
	b.WriteByte('}')
	return b.String()
}
