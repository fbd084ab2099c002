package tsdb

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed relation.sql
	relationWithoutOrder string
	//go:embed relation_kind.sql
	relationKindSQL string
	//go:embed relation_indexes.sql
	relationIndexesSQL string
)

var relationSQL = pg.WithOrder(relationWithoutOrder)

// Image is the state of a source chunk as the target must know it. It travels
// in the header of a segment.
type Image struct {
	Compressed bool `json:"compressed,omitempty"`
	Frozen     bool `json:"frozen,omitempty"`
	// WhyRows says why a compressed chunk travels as rows; empty when its
	// compressed relation travels as it is, and Relation describes it.
	WhyRows  string    `json:"why_rows,omitempty"`
	Relation *Relation `json:"relation,omitempty"`
	// Hidden is how many rows of the task's range the chunk has that no query
	// shows (Chunk.Hides). They do not travel.
	Hidden int64 `json:"hidden,omitempty"`
	// Aggregates are the continuous aggregates on the chunk's hypertable, and those on them,
	// as far as they can be compared with the target's, and Around what else of the
	// hypertable they are computed from: see Aggregate.Image.
	Aggregates []AggregateImage `json:"aggregates,omitempty"`
	Around     []ChunkImage     `json:"around,omitempty"`
}

// Relation describes the compressed relation of a chunk so that another server
// can build it again. It holds structured values only: names, flags, numbers.
type Relation struct {
	Columns  []RelationColumn `json:"columns"`
	Indexes  [][]IndexColumn  `json:"indexes"`
	Settings Settings         `json:"settings"`
	// Nulls are the columns in which SQL NULL occurs: on a chunk that a
	// column with a default was added to after compression, it stands for the
	// default.
	Nulls []string `json:"nulls,omitempty"`
	// Incompressible are the columns of batches that TOAST compresses where it can, and of
	// which it could not compress a single value.
	Incompressible []string `json:"incompressible,omitempty"`
	// Rows is the number of rows in the batches; the sizes are those of the
	// chunk before it was compressed: heap, toast, indexes.
	Rows     int64    `json:"rows"`
	Before   [3]int64 `json:"before"`
	Encoding string   `json:"encoding"` // of the database
	// Enforced are the constraints that the source enforces: see Hypertable.
	Enforced []string `json:"enforced,omitempty"`

	// Where it was read: its quoted name, whether all of it can travel in binary, and the
	// columns that the chunk got, with a default, after it was made.
	Quoted string   `json:"-"`
	Binary bool     `json:"-"`
	Added  []string `json:"-"`
}

// RelationColumn is one column of a compressed relation.
type RelationColumn struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Storage    string `json:"storage"` // p, e, m or x as in pg_attribute
	Statistics int    `json:"statistics"`
	Collation  string `json:"collation,omitempty"` // the database's default spelled out
	pg.Order
	// Index says for a metadata column what it holds of which columns.
	Index *SparseIndex `json:"index,omitempty"`
}

// IndexColumn is one column of a btree.
type IndexColumn struct {
	Column     string `json:"column"`
	Desc       bool   `json:"desc,omitempty"`
	NullsFirst bool   `json:"nulls_first,omitempty"`
}

// CompressedData is the type of compressed columns.
const CompressedData = "_timescaledb_internal.compressed_data"

// BloomType is the type of bloom filters. It has no binary I/O.
const BloomType = "_timescaledb_internal.bloom1"

// metaPrefix begins the names of metadata columns.
const metaPrefix = "_ts_meta_"

// Relation describes the compressed relation of a chunk. why says what in it
// is not understood; then it must not travel as it is.
func (c *Chunk) Relation(ctx context.Context, db *DB, h *Hypertable) (r *Relation, why string, err error) {
	r = &Relation{Enforced: h.Enforced}
	var s *Settings
	var kind string
	var ask pgx.Batch
	askSettings(db, &ask, c, &s)
	ask.Queue(relationKindSQL, c.RelationOID, c.OID).QueryRow(pg.Into(&kind, &r.Quoted, &r.Added))
	ask.Queue(relationIndexesSQL, c.RelationOID).Query(r.scanIndexes)
	ask.Queue(`select uncompressed_heap_size, uncompressed_toast_size, uncompressed_index_size
        from _timescaledb_catalog.compression_chunk_size where chunk_id = $1`, c.ID).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&r.Before[0], &r.Before[1], &r.Before[2])
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err := db.SendBatch(ctx, &ask).Close(); err != nil {
		return nil, "", db.Wrap(err, "compressed relation of chunk %s", c.Name)
	}
	if s == nil {
		return nil, "the chunk has no compression settings", nil
	}
	r.Settings = *s
	if err := r.describe(ctx, db, c.RelationOID, kind); err != nil {
		return nil, "", err
	}
	if why, err = r.attribute(ctx, db, h); err != nil || why != "" {
		return nil, why, err
	}
	return r, "", r.count(ctx, db)
}

// relationKind is what was read of the last compressed relation: another one whose
// attributes are the same, to the last number in the catalog, has the same columns. To
// look up what a collation is takes longer than all else.
type relationKind struct {
	kind     string // a hash of the attributes
	columns  []RelationColumn
	encoding string
	binary   bool
}

// describe reads the columns, unless those of a relation of that kind are known.
func (r *Relation) describe(ctx context.Context, db *DB, oid uint32, kind string) (err error) {
	k := &db.lastKind
	if k.kind != kind {
		n := relationKind{kind: kind, binary: true}
		if n.columns, n.encoding, err = RelationColumns(ctx, db, oid); err != nil {
			return err
		}
		if (&Relation{Columns: n.columns}).Broken() == "" { // or the names cannot be sent
			columns, err := db.Columns(ctx, oid)
			if err != nil {
				return err
			}
			for _, c := range columns[oid] {
				n.binary = n.binary && c.Binary
			}
		}
		for _, c := range n.columns {
			if strings.HasPrefix(c.Locale, "enum ") { // its labels are no attribute: they may get more
				n.kind = ""
			}
		}
		*k = n
	}
	r.Columns, r.Encoding, r.Binary = slices.Clone(k.columns), k.encoding, k.binary
	return nil
}

// RelationColumns lists the columns of a compressed relation, and the encoding
// of the database.
func RelationColumns(ctx context.Context, db *DB, oid uint32) (cols []RelationColumn, encoding string, err error) {
	rows, err := db.Query(ctx, relationSQL, oid)
	if err != nil {
		return nil, "", db.Wrap(err, "columns of the compressed relation")
	}
	var c RelationColumn
	var name []byte
	_, err = pgx.ForEachRow(rows, []any{&name, &c.Type, &c.Storage, &c.Statistics, &c.Collation, &c.Locale, &c.Version,
		&encoding}, func() error {
		c.Name = string(name)
		cols = append(cols, c)
		return nil
	})
	return cols, encoding, db.Wrap(err, "columns of the compressed relation")
}

func (r *Relation) scanIndexes(rows pgx.Rows) error {
	var id, last uint32
	var c IndexColumn
	var name []byte
	_, err := pgx.ForEachRow(rows, []any{&id, &name, &c.Desc, &c.NullsFirst}, func() error {
		if id != last {
			r.Indexes, last = append(r.Indexes, nil), id
		}
		c.Column = string(name)
		r.Indexes[len(r.Indexes)-1] = append(r.Indexes[len(r.Indexes)-1], c)
		return nil
	})
	return err
}

// Droppable reports whether the column only speeds queries up and does so by a
// hash of the version that wrote it.
func (c *RelationColumn) Droppable() bool {
	return c.Index != nil && (c.Index.Kind == Bloom || c.Index.Kind == stale)
}

// ranges reports whether the column says between which values those of a batch
// are, or with which the batch begins and ends.
func (c *RelationColumn) ranges() bool {
	return c.Index != nil && (c.Index.Kind == MinMax || c.Index.Kind == FirstLast)
}

// Stale reports whether the version that has the column no longer uses it.
func (c *RelationColumn) Stale() bool { return c.Index != nil && c.Index.Kind == stale }

// count counts the rows in the batches, and finds the columns with SQL NULLs and those
// that TOAST cannot compress; none of it decompresses anything.
func (r *Relation) count(ctx context.Context, db *DB) error {
	nulls, incompressible := "array[]::text[]", "array[]::text[]"
	name := func(when, column string) string {
		return " || case when " + when + " then array[" + pg.Literal(column) + "] end"
	}
	for _, c := range r.Columns {
		if strings.HasPrefix(c.Name, metaPrefix) {
			continue
		}
		read := pg.Ident(c.Name)
		if !slices.Contains(r.Settings.SegmentBy, c.Name) { // a batch of values, not a value
			read = NullBatches(db, c.Name)
			if c.Storage == extended && db.Major() >= 14 { // ≤ 13: there is no pg_column_compression
				incompressible += name("count(pg_column_compression("+pg.Ident(c.Name)+")) = 0", c.Name)
			}
		}
		nulls += name("count(*) > count("+read+")", c.Name)
	}
	// Not prepared: the next chunk has another relation.
	err := db.QueryRow(ctx, "select coalesce(sum(_ts_meta_count), 0)::bigint, "+nulls+", "+incompressible+
		" from only "+r.Quoted, pgx.QueryExecModeSimpleProtocol).Scan(&r.Rows, &r.Nulls, &r.Incompressible)
	return db.Wrap(err, "compressed relation %s", r.Quoted)
}

// NullBatches returns the expression that reads a compressed column of this
// server. 2.19 to 2.21 store a batch without values as a one-byte algorithm
// that 2.19 and 2.20.0 themselves refuse to receive: there it is read as SQL
// NULL, which means the same and which every version takes. Newer versions
// receive the byte, and nothing older is ever sent their data as it is.
func NullBatches(db *DB, column string) string {
	q := pg.Ident(column)
	if !db.columns["compression_settings.compress_relid"] || db.ListsSparseIndexes() {
		return q
	}
	return fmt.Sprintf(`case when pg_column_size(%s) > 16 or %s <> '\x06' then %[1]s end`, q, Sent(column))
}

// Sent is the expression for the bytes that a compressed column's value is sent
// as. The function is in this schema on every version.
func Sent(column string) string {
	return "_timescaledb_functions.compressed_data_send(" + pg.Ident(column) + ")"
}

// Valid reports what in a relation's description is malformed.
func (r *Relation) Valid() error {
	n := len(r.Settings.OrderBy)
	if len(r.Settings.Desc) != n || len(r.Settings.NullsFirst) != n {
		return errors.New("its order has columns without directions")
	}
	seen := map[string]bool{}
	for _, c := range r.Columns {
		if seen[c.Name] || c.Name == "" || strings.ContainsRune(c.Name, 0) {
			return fmt.Errorf("its column %q comes twice or has no proper name", c.Name)
		}
		seen[c.Name] = true
		if storages[c.Storage] == "" || c.Statistics < -1 || c.Statistics > 10000 {
			return fmt.Errorf("its column %q has storage %q, statistics %d", c.Name, c.Storage, c.Statistics)
		}
	}
	for _, i := range r.Indexes {
		for _, c := range i {
			if !seen[c.Column] {
				return fmt.Errorf("its index is on column %q, which it does not have", c.Column)
			}
		}
	}
	return nil
}

var storages = map[string]string{"p": "plain", "e": "external", "m": "main", extended: "extended"}

// extended is the storage of a column whose long values TOAST tries to compress.
const extended = "x"

// StorageSQL is the keyword of the column's storage.
func (c *RelationColumn) StorageSQL() string { return storages[c.Storage] }

// compareColumns orders columns by name.
func compareColumns(a, b RelationColumn) int { return cmp.Compare(a.Name, b.Name) }

// SameColumns reports whether two compressed relations have the same columns
// in whatever order, sorted alike; where they do not, it says in words what
// differs.
func SameColumns(want, have []RelationColumn) (differs string, same bool) {
	a, b := slices.SortedFunc(slices.Values(want), compareColumns),
		slices.SortedFunc(slices.Values(have), compareColumns)
	for i := range max(len(a), len(b)) {
		switch {
		case i == len(b) || i < len(a) && a[i].Name < b[i].Name:
			return fmt.Sprintf("no column %q", a[i].Name), false
		case i == len(a) || b[i].Name < a[i].Name:
			return fmt.Sprintf("an additional column %q", b[i].Name), false
		case a[i].Type != b[i].Type:
			return fmt.Sprintf("column %q of type %s instead of %s", a[i].Name, b[i].Type, a[i].Type), false
		case !a[i].Order.Same(b[i].Order, a[i].ranges() || b[i].ranges()):
			return fmt.Sprintf("column %q sorted by %s instead of %s", a[i].Name, b[i].Spelled(), a[i].Spelled()), false
		}
	}
	return "", true
}
