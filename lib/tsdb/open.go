// Package tsdb is everything that bf knows about TimescaleDB: its catalogs,
// editions and versions, behind plain types. It is the only place where a
// version shows.
//
//	DB           a connection: finds hypertables, chunks, aggregates and jobs, by name or
//	             all of them, and knows what the server can do
//	Hypertable   its chunks in a range, conditions and bounds in SQL
//	Chunk        state, compression, its compressed relation
//	Aggregate    a continuous aggregate: buckets, invalidations, refresh
//	Blueprint    a table made to become a chunk
//	Built        a compressed relation made to become a chunk's
//	Part         of a plain relation: what is read and counted by itself
//	Definition   what a hypertable is, for making one like it
//
// What is of one of them is its method and takes the connection; what is of several, or
// of none, is a function.
package tsdb

import (
	"context"
	_ "embed"
	"errors"
	"slices"
	"strconv"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed probe.sql
	probeSQL string
	//go:embed session.sql
	sessionSQL string
)

// DB is a connection to a database and what was found out about it.
type DB struct {
	*pg.Conn
	Postgres    int    // server_version_num
	TimescaleDB string // version of the extension in this database; "" in a source without it
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

	columns map[string]bool       // "relation.column" of the catalogs that changed over time
	known   map[int32]*Hypertable // as this connection has last read them
	chunks  *strings.Replacer

	attaches *bool // what Attaches has found out
	marks    bool  // and Attach has to mark what a chunk inherits
	serial   bool  // and to number its constraints
	lastKind relationKind
	bloom    *string // how columns with bloom filters are called
}

// Open connects to one side and probes it. A target must have TimescaleDB, a source
// need not: it has no hypertables then.
func Open(ctx context.Context, side pg.Side, connString string, o pg.Options) (*DB, error) {
	conn, err := pg.Connect(ctx, side, connString, o)
	if err != nil {
		return nil, err
	}
	db, err := On(ctx, conn)
	if err != nil && (side != pg.Source || !errors.Is(err, ErrNoExtension)) {
		conn.Close()
		return nil, err
	}
	return db, nil
}

// ErrNoExtension: the database does not have TimescaleDB.
var ErrNoExtension = errors.New("the timescaledb extension is not installed")

// On probes a connection that is open already, and may be in a transaction. The
// error is ErrNoExtension on a database without TimescaleDB.
func On(ctx context.Context, conn *pg.Conn) (*DB, error) {
	db := &DB{Conn: conn}
	return db, db.probe(ctx)
}

func (db *DB) probe(ctx context.Context) error {
	var license string
	var columns []string
	err := db.QueryRow(ctx, probeSQL).Scan(&db.Postgres, &db.TimescaleDB, &db.ExtensionSchema, &db.Functions,
		&license, &db.Superuser, &db.Identity, &db.Origin, &db.LSN, &db.Standby, &columns)
	if err != nil {
		return db.Wrap(err, "probe")
	}
	// Its settings are known once the extension's library is loaded, which the
	// probe itself may have done.
	if _, err := db.Exec(ctx, sessionSQL); err != nil {
		return db.Wrap(err, "session settings")
	}
	if license == "" {
		if err := db.QueryRow(ctx, "select coalesce(current_setting('timescaledb.license', true), '')").
			Scan(&license); err != nil {
			return db.Wrap(err, "probe")
		}
	}
	db.Full = license == "timescale"
	db.columns, db.known = map[string]bool{}, map[int32]*Hypertable{}
	for _, c := range columns {
		db.columns[c] = true
	}
	db.chunks = chunksOf(db.columns)
	if db.Plain() {
		return &pg.Error{Side: db.Side, Object: "database " + strconv.Quote(db.Config().Database), Err: ErrNoExtension,
			Hint: "check the database name; on a new target run: create extension timescaledb"}
	}
	return nil
}

// Plain reports whether the database is without TimescaleDB.
func (db *DB) Plain() bool { return db.TimescaleDB == "" }

// Fn returns the quoted name of an internal function of TimescaleDB.
func (db *DB) Fn(name string) string { return pg.Ident(db.Functions, name) }

// MayBuild reports whether the role may create relations where the compressed ones
// of chunks have to be, and who that is, quoted.
func MayBuild(ctx context.Context, db *DB) (may bool, role string, err error) {
	var ask pgx.Batch
	AskMayBuild(&ask, &may, &role)
	return may, role, db.Wrap(db.SendBatch(ctx, &ask).Close(), "privileges")
}

// AskMayBuild asks whether it may.
func AskMayBuild(ask *pgx.Batch, may *bool, role *string) {
	ask.Queue("select has_schema_privilege('_timescaledb_internal', 'create'), quote_ident(current_user)").
		QueryRow(pg.Into(may, role))
}

// AtLeast reports whether one version of TimescaleDB is another or newer. A
// version that is not understood is older than any.
func AtLeast(version, other string) bool {
	a, b := numbers(version), numbers(other)
	return slices.Compare(a[:], b[:]) >= 0
}

func numbers(version string) (n [3]int) {
	version, _, _ = strings.Cut(version, "-")
	for i, s := range strings.SplitN(version, ".", 3) {
		n[i], _ = strconv.Atoi(s)
	}
	return n
}
