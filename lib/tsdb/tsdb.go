// Package tsdb is everything that bf knows about TimescaleDB: its catalogs,
// editions and versions, behind plain types. It is the only place where a
// version shows.
package tsdb

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed probe.sql
	probeSQL string
	//go:embed session.sql
	sessionSQL string
	//go:embed hypertables.sql
	hypertablesSQL string
	//go:embed dimensions.sql
	dimensionsSQL string
	//go:embed columns.sql
	columnsWithoutOrder string
	//go:embed order.sql
	orderSQL string
	//go:embed chunks.sql
	chunksSQL string
	//go:embed enforced.sql
	enforcedSQL string
	//go:embed references.sql
	referencesSQL string
)

// withOrder puts order.sql into a query of columns a.
func withOrder(sql string) string { return strings.Replace(sql, "{order}", orderSQL, 1) }

var columnsSQL = withOrder(columnsWithoutOrder)

// DB is a connection to a database with TimescaleDB and what was found out
// about it.
type DB struct {
	*pg.Conn
	Postgres    int    // server_version_num
	TimescaleDB string // version of the extension in this database
	// Full is false for the Apache edition (license apache), which refuses
	// create_chunk and knows no compression and no continuous aggregates.
	Full      bool
	Superuser bool
	// Identity names the database across servers (its OID and when the server
	// started, which tells a clone from its original): two connections with
	// one identity see the same data.
	Identity string
	// Origin names the database for as long as it lives, a hot standby and
	// what it is promoted to included (system identifier and OID).
	Origin string
	// LSN is the end of its log, or how far a standby had replayed it, when it
	// was probed.
	LSN     string
	Standby bool // it is a hot standby
	// Functions is the schema of TimescaleDB's internal functions,
	// ExtensionSchema that of its public ones.
	Functions       string
	ExtensionSchema string

	columns map[string]bool // "relation.column" of the catalogs that changed over time
	known   map[int32]known // hypertables seen by this connection
	chunks  *strings.Replacer

	attaches *bool // what Attaches has found out
}

// Open connects to one side and probes it. It fails on a database without
// TimescaleDB.
func Open(ctx context.Context, side pg.Side, connString string, o pg.Options) (*DB, error) {
	conn, err := pg.Connect(ctx, side, connString, o)
	if err != nil {
		return nil, err
	}
	db := &DB{Conn: conn}
	if err := db.probe(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) probe(ctx context.Context) error {
	var license string
	var columns []string
	err := db.QueryRow(ctx, probeSQL).Scan(&db.Postgres, &db.TimescaleDB, &db.ExtensionSchema, &db.Functions, &license, &db.Superuser, &db.Identity, &db.Origin, &db.LSN, &db.Standby, &columns)
	if errors.Is(err, pgx.ErrNoRows) {
		return &pg.Error{Side: db.Side, Object: "database " + strconv.Quote(db.Config().Database), Err: errors.New("the timescaledb extension is not installed"),
			Hint: "check the database name; on a new target run: create extension timescaledb"}
	}
	if err != nil {
		return db.Wrap(err, "probe")
	}
	// Its settings are known once the extension's library is loaded, which the
	// probe itself may have done.
	if _, err := db.Exec(ctx, sessionSQL); err != nil {
		return db.Wrap(err, "session settings")
	}
	if license == "" {
		if err := db.QueryRow(ctx, "select coalesce(current_setting('timescaledb.license', true), '')").Scan(&license); err != nil {
			return db.Wrap(err, "probe")
		}
	}
	db.Full = license == "timescale"
	db.columns, db.known = map[string]bool{}, map[int32]known{}
	for _, c := range columns {
		db.columns[c] = true
	}

	class := "join lateral (select * from pg_class where relname = c.table_name and relnamespace = (select oid from pg_namespace where nspname = c.schema_name) offset 0) cl on true"
	named := "c.schema_name = $1 and c.table_name = $2"
	if db.columns["chunk.relid"] {
		class = "join lateral (select * from pg_class where oid = c.relid offset 0) cl on true"
		named = "c.relid = to_regclass(format('%I.%I', $1::text, $2::text))"
	}
	compressed := "left join lateral (select to_regclass(format('%I.%I', zc.schema_name, zc.table_name)) as relid from _timescaledb_catalog.chunk zc where zc.id = c.compressed_chunk_id) z on true"
	if db.columns["compression_settings.compress_relid"] {
		compressed = "left join lateral (select cs.compress_relid as relid from _timescaledb_catalog.compression_settings cs where cs.relid = cl.oid) z on true"
	}
	dropped := ""
	if db.columns["chunk.dropped"] {
		dropped = "and not c.dropped"
	}
	db.chunks = strings.NewReplacer("{class}", class, "{compressed}", compressed, "{dropped}", dropped, "{named}", named)
	return nil
}

// Fn returns the quoted name of an internal function of TimescaleDB.
func (db *DB) Fn(name string) string { return pg.Ident(db.Functions, name) }

// Dimension is one dimension of a hypertable.
type Dimension struct {
	Column string
	Type   string // of the column
	// Partitions is the number of hash partitions; 0 for an open (range)
	// dimension.
	Partitions int
	Interval   int64 // chunk interval in internal units; open dimensions only
	// Calendar is set where chunks begin and end with days, months or years in
	// the time zone of the session that makes them. Interval is an estimate then.
	Calendar  bool
	Func      task.Name // partitioning function; zero for none
	RangeType string    // what an open dimension ranges over: the function's result type, else Type
}

// Hash reports whether the dimension is closed (hash-partitioned).
func (d *Dimension) Hash() bool { return d.Partitions > 0 }

// Column is one column of a relation.
type Column struct {
	Name      string
	Type      string // as format_type() spells it
	NotNull   bool
	Generated bool // computed by the server, never copied
	Default   bool // has a default or is an identity
	Collation string
	Binary    bool   // the type can travel in binary COPY
	Hash      string // what of it to hash, one of the constants Hash…
	Order
}

// Order is what decides how the values of a column are sorted; zero where that
// is the same everywhere. See order.sql.
type Order struct {
	Locale  string `json:"locale,omitempty"`
	Version string `json:"locale_version,omitempty"` // of the library, where one is recorded
}

// Same reports whether two columns sort their values alike. Another version of
// the library may sort otherwise: that counts where something relies on the
// order, not where it would only be in the way of every move to another host.
func (o Order) Same(other Order, reliedOn bool) bool {
	return o.Locale == other.Locale && (!reliedOn || o.Version == other.Version || o.Version == "" || other.Version == "")
}

// Spelled is what a message says of it.
func (o Order) Spelled() string {
	if o.Version == "" {
		return o.Locale
	}
	return o.Locale + " (version " + o.Version + ")"
}

// What of a column to hash so that equal hashes mean the same value, whatever
// the server. See columns.sql.
const (
	HashValue  = "value"  // itself
	HashFloat  = "float"  // itself and the sign of zero
	HashText   = "text"   // its cast to text
	HashRecord = "record" // the text of a record of it: a cast to text may lose something, or be the user's
)

// sendFunctions are what else Column.Hash may be: the function whose result is
// hashed, the one by which a binary COPY sends the type.
var sendFunctions = []string{"int8send", "numeric_send", "time_send", "timetz_send", "timestamp_send", "timestamptz_send",
	"interval_send", "pg_lsn_send", "xid8send", "array_send"}

// Sends reports whether that is the name of a function to send a value by.
func Sends(how string) bool { return slices.Contains(sendFunctions, how) }

// KnowsHash reports whether that is a way to hash a column.
func KnowsHash(how string) bool {
	return slices.Contains([]string{HashValue, HashFloat, HashText, HashRecord}, how) || Sends(how)
}

// Hypertable is a hypertable, or the materialization hypertable behind a
// continuous aggregate.
type Hypertable struct {
	ID         int32
	Name       task.Name
	OID        uint32
	Dimensions []Dimension // primary first
	Columns    []Column
	Compressed bool     // compression is enabled on it
	Enforced   []string // what its constraints demand of rows, to be compared

	// Of a continuous aggregate: its user view and the hypertable it
	// aggregates.
	View      *task.Name
	Raw       int32 // the parent's materialization hypertable in a hierarchy
	Finalized bool  // false for a legacy aggregate in partial form
}

// Label is the name that users know: the view of a continuous aggregate, else
// the hypertable.
func (h *Hypertable) Label() task.Name {
	if h.View != nil {
		return *h.View
	}
	return h.Name
}

// Copied returns the columns that are copied: all but the generated ones.
func (h *Hypertable) Copied() []Column {
	return slices.DeleteFunc(slices.Clone(h.Columns), func(c Column) bool { return c.Generated })
}

// Hypertables lists all hypertables of the database with their dimensions and
// columns.
func (db *DB) Hypertables(ctx context.Context) ([]*Hypertable, error) {
	return db.queryHypertables(ctx, "true")
}

// Hypertable returns the hypertable of that id, nil if there is none.
func (db *DB) Hypertable(ctx context.Context, id int32) (*Hypertable, error) {
	return db.hypertable(ctx, "h.id = $1", id)
}

// HypertableFor returns the hypertable of that name, or the one behind the
// continuous aggregate of that view; nil if there is none.
func (db *DB) HypertableFor(ctx context.Context, name task.Name, view *task.Name) (*Hypertable, error) {
	if view != nil {
		return db.hypertable(ctx, "h.id = (select mat_hypertable_id from _timescaledb_catalog.continuous_agg where user_view_schema = $1 and user_view_name = $2)", view.Schema, view.Name)
	}
	return db.hypertable(ctx, "h.schema_name = $1 and h.table_name = $2 and not exists (select from _timescaledb_catalog.continuous_agg where mat_hypertable_id = h.id)", name.Schema, name.Name)
}

// known is a hypertable as it was read, and the fingerprint it had then.
type known struct {
	h           *Hypertable
	fingerprint string
}

//go:embed fingerprint.sql
var fingerprintSQL string

// hypertable reads one hypertable, unless it is known and nothing about it has
// changed: a lane that copies thousands of chunks reads columns and dimensions
// once, and still sees an ALTER TABLE between two chunks.
func (db *DB) hypertable(ctx context.Context, which string, args ...any) (*Hypertable, error) {
	var id int32
	var fingerprint string
	err := db.QueryRow(ctx, strings.Replace(fingerprintSQL, "{which}", which, 1), args...).Scan(&id, &fingerprint)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, db.Wrap(err, "look up a hypertable")
	}
	if k := db.known[id]; k.h != nil && k.fingerprint == fingerprint {
		return k.h, nil
	}
	hs, err := db.queryHypertables(ctx, "h.id = $1", id)
	if err != nil || len(hs) == 0 {
		return nil, err
	}
	db.known[id] = known{hs[0], fingerprint}
	return hs[0], nil
}

func (db *DB) queryHypertables(ctx context.Context, which string, args ...any) ([]*Hypertable, error) {
	rows, err := db.Query(ctx, strings.Replace(hypertablesSQL, "{which}", which, 1), args...)
	if err != nil {
		return nil, db.Wrap(err, "list hypertables")
	}
	hs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Hypertable, error) {
		var h Hypertable
		var vs, vn *string
		var raw *int32
		err := r.Scan(&h.ID, &h.Name.Schema, &h.Name.Name, &h.OID, &vs, &vn, &raw, &h.Finalized, &h.Compressed)
		if vs != nil {
			h.View = &task.Name{Schema: *vs, Name: *vn}
			h.Raw = *raw
		}
		return &h, err
	})
	if err != nil {
		return nil, db.Wrap(err, "list hypertables")
	}
	return hs, db.describe(ctx, hs)
}

// describe fills in dimensions and columns.
func (db *DB) describe(ctx context.Context, hs []*Hypertable) error {
	ids, oids := make([]int32, len(hs)), make([]uint32, len(hs))
	byID, byOID := map[int32]*Hypertable{}, map[uint32]*Hypertable{}
	for i, h := range hs {
		ids[i], oids[i] = h.ID, h.OID
		byID[h.ID], byOID[h.OID] = h, h
	}
	rows, err := db.Query(ctx, dimensionsSQL, ids)
	if err != nil {
		return db.Wrap(err, "list dimensions")
	}
	var id int32
	var d Dimension
	_, err = pgx.ForEachRow(rows, []any{&id, &d.Column, &d.Type, &d.Partitions, &d.Interval, &d.Calendar, &d.Func.Schema, &d.Func.Name, &d.RangeType}, func() error {
		byID[id].Dimensions = append(byID[id].Dimensions, d)
		return nil
	})
	if err != nil {
		return db.Wrap(err, "list dimensions")
	}
	cols, err := db.Columns(ctx, oids...)
	if err != nil {
		return err
	}
	for oid, c := range cols {
		byOID[oid].Columns = c
	}
	if rows, err = db.Query(ctx, enforcedSQL, oids); err != nil {
		return db.Wrap(err, "list constraints")
	}
	var oid uint32
	var demand string
	_, err = pgx.ForEachRow(rows, []any{&oid, &demand}, func() error {
		byOID[oid].Enforced = append(byOID[oid].Enforced, demand)
		return nil
	})
	return db.Wrap(err, "list constraints")
}

// Stricter returns what the hypertable demands of its rows and has does not:
// only its own server would find that a row does not comply. "" for nothing.
func (h *Hypertable) Stricter(has []string) string {
	for _, e := range h.Enforced {
		if !slices.Contains(has, e) {
			return e
		}
	}
	return ""
}

// Reference is a foreign key of a hypertable.
type Reference struct {
	Name    string
	Table   task.Name // that it references
	Columns []string
	Keys    []string // the columns of Table, in that order
	Allowed bool     // the role may look the rows of Table up and lock them
}

// References lists the foreign keys of a hypertable.
func (db *DB) References(ctx context.Context, h *Hypertable) ([]Reference, error) {
	rows, err := db.Query(ctx, referencesSQL, h.OID)
	if err != nil {
		return nil, db.Wrap(err, "foreign keys of %s", h.Name)
	}
	refs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (f Reference, err error) {
		err = r.Scan(&f.Name, &f.Table.Schema, &f.Table.Name, &f.Columns, &f.Keys, &f.Allowed)
		return f, err
	})
	return refs, db.Wrap(err, "foreign keys of %s", h.Name)
}

// Referenced returns the columns of a key by which another table references the
// hypertable; nil if none does.
func (db *DB) Referenced(ctx context.Context, h *Hypertable) (key []string, err error) {
	// By their triggers: there is no index on what a constraint references.
	err = db.QueryRow(ctx, `select (
            select array(select a.attname::text from unnest(c.confkey) k join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k)
            from pg_trigger g join pg_constraint c on c.oid = g.tgconstraint
            where g.tgrelid = $1 and c.confrelid = $1 and c.contype = 'f' limit 1)`, h.OID).Scan(&key)
	return key, db.Wrap(err, "foreign keys to %s", h.Name)
}

// MayBuild reports whether the role may create relations where the compressed ones
// of chunks have to be, and who that is, quoted.
func (db *DB) MayBuild(ctx context.Context) (may bool, role string, err error) {
	err = db.QueryRow(ctx, "select has_schema_privilege('_timescaledb_internal', 'create'), quote_ident(current_user)").Scan(&may, &role)
	return may, role, db.Wrap(err, "privileges")
}

// Columns lists the columns of relations, by OID.
func (db *DB) Columns(ctx context.Context, oids ...uint32) (map[uint32][]Column, error) {
	rows, err := db.Query(ctx, columnsSQL, oids)
	if err != nil {
		return nil, db.Wrap(err, "list columns")
	}
	m := map[uint32][]Column{}
	var oid uint32
	var c Column
	_, err = pgx.ForEachRow(rows, []any{&oid, &c.Name, &c.Type, &c.NotNull, &c.Generated, &c.Default, &c.Collation, &c.Locale, &c.Version, &c.Binary, &c.Hash}, func() error {
		m[oid] = append(m[oid], c)
		return nil
	})
	return m, db.Wrap(err, "list columns")
}

// The events of triggers, as bits of pg_trigger.tgtype.
const (
	OnInsert = 4
	OnDelete = 8
)

// RowTriggers lists the users' row triggers of a hypertable for an event, or one
// of several: those on INSERT fire on a COPY into its chunks. The trigger that logs invalidations of continuous
// aggregates (up to 2.22) and the one that keeps rows out of the root are
// TimescaleDB's own.
func (db *DB) RowTriggers(ctx context.Context, h *Hypertable, event int) ([]string, error) {
	rows, err := db.Query(ctx, `select tgname from pg_trigger
        where tgrelid = $1 and not tgisinternal and tgtype & 1 = 1 and tgtype & $2 <> 0 and tgenabled in ('O', 'A')
          and tgname not in ('ts_insert_blocker', 'ts_cagg_invalidation_trigger') order by 1`, h.OID, event)
	if err != nil {
		return nil, db.Wrap(err, "triggers of %s", h.Name)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, db.Wrap(err, "triggers of %s", h.Name)
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
	ID         int32
	Hypertable int32 // id of its hypertable
	Name       task.Name
	OID        uint32
	Status     int32
	Slices     []task.Slice // primary dimension first; Hash is not set
	Rows       int64        // the planner's estimate
	Bytes      int64        // of the relations that travel, without indexes
	Compressed uint32       // OID of the compressed relation, 0 for none
	// Rewritten is set when the chunk was rewritten (compressed, truncated)
	// after the snapshot that this was read in was taken: a COPY in it would
	// read nothing.
	Rewritten bool
	AM        string // access method
}

// Chunks lists the chunks of hypertables.
func (db *DB) Chunks(ctx context.Context, hypertables ...int32) ([]*Chunk, error) {
	return db.queryChunks(ctx, "c.hypertable_id = any($1)", hypertables)
}

// Chunk returns the chunk of that name, nil if there is none.
func (db *DB) Chunk(ctx context.Context, name task.Name) (*Chunk, error) {
	cs, err := db.queryChunks(ctx, "{named}", name.Schema, name.Name)
	if err != nil || len(cs) == 0 {
		return nil, err
	}
	return cs[0], nil
}

// ChunkOf returns the chunk of the hypertable that has exactly these slices,
// nil if there is none.
func (db *DB) ChunkOf(ctx context.Context, h *Hypertable, want []task.Slice) (*Chunk, error) {
	// The array is computed first, by index: a join lets the planner walk all
	// chunks of the hypertable.
	cs, err := db.queryChunks(ctx, `c.id = any(array(
            select cc.chunk_id
            from _timescaledb_catalog.dimension_slice ds
            join _timescaledb_catalog.chunk_constraint cc on cc.dimension_slice_id = ds.id
            where ds.dimension_id = (select id from _timescaledb_catalog.dimension where hypertable_id = $1 and column_name = $2)
              and ds.range_start = $3::text::bigint and ds.range_end = $4::text::bigint))`,
		h.ID, want[0].Column, want[0].From, want[0].Until)
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		if c.SameSlices(want) {
			return c, nil
		}
	}
	return nil, nil
}

// ChunksIn lists the chunks of the hypertable that may hold rows of the range,
// oldest first.
func (db *DB) ChunksIn(ctx context.Context, h *Hypertable, r task.Range) ([]*Chunk, error) {
	cs, err := db.queryChunks(ctx, `c.id = any(array(
            select cc.chunk_id
            from _timescaledb_catalog.dimension_slice ds
            join _timescaledb_catalog.chunk_constraint cc on cc.dimension_slice_id = ds.id
            where ds.dimension_id = (select id from _timescaledb_catalog.dimension where hypertable_id = $1 and column_name = $2)
              and ds.range_start < $4::text::bigint and ds.range_end > $3::text::bigint))`,
		h.ID, r.Column, r.From, r.Until)
	slices.SortFunc(cs, func(a, b *Chunk) int { return cmp.Compare(a.ID, b.ID) })
	return cs, err
}

// Heirs lists the chunks of the task's hypertable that may hold rows of the
// task. When the hypertable is not found under its name, it is one that gives
// its chunks such names as the task's: a chunk's name begins with a prefix that
// has the hypertable's number and survives a renaming.
func (db *DB) Heirs(ctx context.Context, t *task.Task) ([]*Chunk, error) {
	var hs []*Hypertable
	h, err := db.HypertableFor(ctx, t.Hypertable, t.View)
	if h != nil {
		hs = append(hs, h)
	} else if err == nil {
		hs, err = db.queryHypertables(ctx, "starts_with($1, h.associated_table_prefix || '_')", t.Chunk.Name)
	}
	if err != nil {
		return nil, err
	}
	var heirs []*Chunk
	for _, h := range hs {
		r := t.Range
		r.Column = h.Dimensions[0].Column
		cs, err := db.ChunksIn(ctx, h, r)
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

func (db *DB) queryChunks(ctx context.Context, which string, args ...any) ([]*Chunk, error) {
	sql := db.chunks.Replace(strings.Replace(chunksSQL, "{which}", which, 1))
	rows, err := db.Query(ctx, db.chunks.Replace(sql), args...)
	if err != nil {
		return nil, db.Wrap(err, "list chunks")
	}
	cs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Chunk, error) {
		var c Chunk
		var cols []string
		var from, until []int64
		err := r.Scan(&c.ID, &c.Hypertable, &c.Name.Schema, &c.Name.Name, &c.OID, &c.Status, &cols, &from, &until, &c.Rows, &c.Bytes, &c.Compressed, &c.Rewritten, &c.AM)
		for i := range cols {
			c.Slices = append(c.Slices, task.Slice{Column: cols[i], From: task.FormatBound(from[i]), Until: task.FormatBound(until[i])})
		}
		return &c, err
	})
	return cs, db.Wrap(err, "list chunks")
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

// Skewed reports whether a column of a dimension has another number in the chunk
// than in the hypertable: a column was dropped before the chunk was made.
// TimescaleDB (2.28 and 2.29 at least) then checks the wrong column, or none
// that exists, when rows are written to the chunk directly.
func (db *DB) Skewed(ctx context.Context, h *Hypertable, c *Chunk) (skewed bool, err error) {
	columns := make([]string, len(h.Dimensions))
	for i, d := range h.Dimensions {
		columns[i] = d.Column
	}
	err = db.QueryRow(ctx, `select exists (
            select from pg_attribute p join pg_attribute c on c.attrelid = $2 and c.attname = p.attname
            where p.attrelid = $1 and p.attname = any($3) and p.attnum <> c.attnum)`, h.OID, c.OID, columns).Scan(&skewed)
	return skewed, db.Wrap(err, "columns of chunk %s", c.Name)
}

// CreateChunk makes an empty chunk with these slices and returns its name;
// created is false when it was there already. Run it in a transaction of its
// own: it locks the hypertable against other chunk creation until commit. The
// Apache edition refuses it.
func (db *DB) CreateChunk(ctx context.Context, h *Hypertable, want []task.Slice) (name task.Name, created bool, err error) {
	err = db.QueryRow(ctx, "select schema_name, table_name, created from "+db.Fn("create_chunk")+"($1::oid::regclass, $2::text::jsonb)", h.OID, slicesJSON(want)).
		Scan(&name.Schema, &name.Name, &created)
	return name, created, db.Wrap(err, "create a chunk of %s", h.Name)
}

// slicesJSON is how create_chunk wants to hear of slices.
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
