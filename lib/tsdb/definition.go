package tsdb

import (
	"context"
	_ "embed"
	"encoding/json"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed definitions.sql
	definitionsSQL string
	//go:embed aggregate_definitions.sql
	aggregateDefinitionsSQL string
	//go:embed job_definitions.sql
	jobDefinitionsSQL string
	//go:embed takes.sql
	takesSQL string
	//go:embed pausable.sql
	pausableSQL string
	//go:embed referable.sql
	referableSQL string
	//go:embed internals.sql
	internalsSQL string
)

// Definition is what a hypertable was made with, in terms that hold on every
// server.
type Definition struct {
	ID          int32     `json:"id"`
	OID         uint32    `json:"oid"`
	Name        task.Name `json:"name"`
	ChunkSchema string    `json:"chunk_schema"` // "" for TimescaleDB's own
	// ChunkPrefix begins the names of its chunks; "" for TimescaleDB's choice.
	ChunkPrefix    string                `json:"chunk_prefix"`
	ChunkTarget    int64                 `json:"chunk_target"` // bytes, of adaptive chunking; 0 for none
	Compressed     bool                  `json:"compressed"`   // compression (the columnstore) is enabled
	DirectCompress bool                  `json:"direct_compress"`
	Dimensions     []DimensionDefinition `json:"dimensions"` // in the order they were added
	Tablespaces    []string              `json:"tablespaces"`
	Skips          []string              `json:"skips"` // columns with chunk skipping
	Granular       map[string]string     `json:"granular"`
	Settings       *Settings             `json:"-"` // of compression; nil for none
}

// DimensionDefinition is what a dimension was made with.
type DimensionDefinition struct {
	Column     string `json:"column"`
	Partitions int    `json:"partitions"` // 0 for an open dimension
	Interval   int64  `json:"interval"`   // of an open dimension, in internal units
	RangeType  string `json:"range_type"` // what an open dimension ranges over
	// Func is the user's partitioning function, Now the one that tells the
	// current time of an integer dimension; nil for none.
	Func *task.Name `json:"func"`
	Now  *task.Name `json:"now"`
	// CompressedInterval is what chunks are merged into when they are
	// compressed, in internal units; 0 for none.
	CompressedInterval int64 `json:"compressed_interval"`
}

// Integer reports whether an open dimension ranges over integers, not times.
func (d *DimensionDefinition) Integer() bool { return isInt(d.RangeType) }

// Definitions lists what all hypertables were made with, by name, those behind
// continuous aggregates among them.
func Definitions(ctx context.Context, db *DB) ([]*Definition, error) {
	skips, granular := "null::jsonb", "null::jsonb"
	if skipsChunks(db) {
		skips = "(select jsonb_agg(distinct column_name) from _timescaledb_catalog.chunk_column_stats " +
			"where hypertable_id = h.id)"
	}
	if db.columns["hypertable_cagg_settings.hypertable_id"] {
		granular = "(select to_jsonb(s) - 'hypertable_id' from _timescaledb_catalog.hypertable_cagg_settings s " +
			"where s.hypertable_id = h.id)"
	}
	sql := strings.NewReplacer("{skips}", skips, "{granular}", granular, "{which}", "true").Replace(definitionsSQL)
	ds, err := fromJSON[Definition](ctx, db, sql, "list hypertables")
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		if !d.Compressed {
			continue
		}
		if d.Settings, err = HypertableSettings(ctx, db, &Hypertable{ID: d.ID, OID: d.OID}); err != nil {
			return nil, err
		}
		// ≤ 2.21: settings that are decided (they have an order) and name no
		// segments mean none; later ones may leave that to the server.
		if s := d.Settings; s != nil && !db.ListsSparseIndexes() && len(s.OrderBy) > 0 && s.SegmentBy == nil {
			s.SegmentBy = []string{}
		}
	}
	return ds, nil
}

// AggregateDefinition is what a continuous aggregate was made with.
type AggregateDefinition struct {
	ID               int32             `json:"id"` // of its materialization hypertable
	View             task.Name         `json:"view"`
	OID              uint32            `json:"oid"`    // of the user's view
	Direct           uint32            `json:"direct"` // OID of the view with its query
	Owner            string            `json:"owner"`
	MaterializedOnly bool              `json:"materialized_only"`
	Partial          bool              `json:"partial"` // in the old format (finalized = false)
	Granular         bool              `json:"granular"`
	Nested           bool              `json:"nested"` // it aggregates another one
	Query            string            `json:"query"`  // with qualified names, and a semicolon
	Indexes          []IndexDefinition `json:"indexes"`
	// NoBucketIndex is set where the index that the server makes by itself, of
	// the bucket, is not there: it was dropped.
	NoBucketIndex bool `json:"no_bucket_index"`
	// Hypertable is the materialization hypertable.
	Hypertable *Definition `json:"-"`
}

// IndexDefinition is an index of a continuous aggregate.
type IndexDefinition struct {
	Name       string `json:"name"` // "" where the server chose it
	Unique     bool   `json:"unique"`
	Definition string `json:"definition"` // from USING on
}

// AggregateDefinitions lists what all continuous aggregates were made with,
// parents first. Their hypertables are taken out of ds.
func AggregateDefinitions(ctx context.Context, db *DB, ds []*Definition) (
	as []*AggregateDefinition, rest []*Definition, err error) {
	as, err = fromJSON[AggregateDefinition](ctx, db, aggregateDefinitionsSQL, "list continuous aggregates")
	if err != nil {
		return nil, nil, err
	}
	for _, d := range ds {
		if i := slices.IndexFunc(as, func(a *AggregateDefinition) bool { return a.ID == d.ID }); i >= 0 {
			as[i].Hypertable = d
		} else {
			rest = append(rest, d)
		}
	}
	return as, rest, nil
}

// JobDefinition is what a job was made with.
type JobDefinition struct {
	ID               int32                      `json:"id"`
	Proc             task.Name                  `json:"proc"`
	Owner            string                     `json:"owner"`
	ScheduleInterval string                     `json:"schedule_interval"`
	MaxRuntime       string                     `json:"max_runtime"`
	MaxRetries       int                        `json:"max_retries"`
	RetryPeriod      string                     `json:"retry_period"`
	Scheduled        bool                       `json:"scheduled"`
	Fixed            *bool                      `json:"fixed"`
	InitialStart     string                     `json:"initial_start"`
	Timezone         string                     `json:"timezone"`
	Config           map[string]json.RawMessage `json:"config"`
	Check            *task.Name                 `json:"check"`
	Name             string                     `json:"name"`
	Of               *task.Name                 `json:"of"` // of a policy: the hypertable, or the continuous aggregate
}

// The built-in procedures of policies.
const (
	PolicyRefresh     = "policy_refresh_continuous_aggregate"
	PolicyRetention   = "policy_retention"
	PolicyCompression = "policy_compression"
	PolicyReorder     = "policy_reorder"
)

// Policy reports whether the job runs a procedure of TimescaleDB's own.
func (j *JobDefinition) Policy() bool { return strings.HasPrefix(j.Proc.Schema, "_timescaledb_") }

// JobsTable names the catalog of the jobs.
// ≤ 2.22: it is in another schema, where later versions have a view of it.
func JobsTable(db *DB) string {
	if db.columns["bgw_job.id"] {
		return "_timescaledb_catalog.bgw_job"
	}
	return "_timescaledb_config.bgw_job"
}

// JobDefinitions lists what the users' jobs were made with.
func JobDefinitions(ctx context.Context, db *DB) ([]*JobDefinition, error) {
	return fromJSON[JobDefinition](ctx, db, strings.ReplaceAll(jobDefinitionsSQL, "{jobs}", JobsTable(db)), "list jobs")
}

func fromJSON[T any](ctx context.Context, db *DB, sql, what string) ([]*T, error) {
	rows, err := db.Query(ctx, sql)
	if err != nil {
		return nil, db.Wrap(err, "%s", what)
	}
	ts, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*T, error) {
		var b []byte
		if err := r.Scan(&b); err != nil {
			return nil, err
		}
		t := new(T)
		return t, json.Unmarshal(b, t)
	})
	return ts, db.Wrap(err, "%s", what)
}

// Language is what a server's SQL for TimescaleDB looks like.
type Language struct {
	args map[string][]string // of the public functions
}

// LanguageOf finds out which functions the server has.
func LanguageOf(ctx context.Context, db *DB) (*Language, error) {
	rows, err := db.Query(ctx, takesSQL)
	if err != nil {
		return nil, db.Wrap(err, "list functions")
	}
	l := &Language{map[string][]string{}}
	var name string
	var args []string
	_, err = pgx.ForEachRow(rows, []any{&name, &args}, func() error {
		l.args[name] = slices.Clone(args)
		return nil
	})
	return l, db.Wrap(err, "list functions")
}

// Has reports whether there is such a function or procedure.
func (l *Language) Has(function string) bool {
	_, ok := l.args[function]
	return ok
}

// Takes reports whether the function has an argument of that name.
func (l *Language) Takes(function, arg string) bool { return slices.Contains(l.args[function], arg) }

// Columnstore reports whether the options of compression have the names of the
// columnstore (2.18 and newer); the old ones are understood everywhere.
func (l *Language) Columnstore() bool { return l.Has("add_columnstore_policy") }

// PausesNested reports whether alter_job takes the refresh policy of a continuous
// aggregate on top of another one: 2.21 and 2.22 refuse it, whatever is to be altered.
// It tries, and has to be called in a transaction; what it makes is rolled back.
func PausesNested(ctx context.Context, db *DB) (bool, error) {
	refused, err := try(ctx, db, pausableSQL)
	return pg.Code(refused) != pg.NotSupported, err
}

// Referable reports whether a foreign key may reference a hypertable (2.16 and
// newer). It tries like PausesNested.
func Referable(ctx context.Context, db *DB) (bool, error) {
	refused, err := try(ctx, db, referableSQL)
	return refused == nil, err
}

// try runs a script on a scratch schema, in a transaction that goes on, and rolls
// it back. refused is what it failed with.
func try(ctx context.Context, db *DB, script string) (refused, err error) {
	sql := strings.NewReplacer("{public}", pg.Ident(db.ExtensionSchema), "{probe}", "__backfill_probe").
		Replace(script)
	if _, err = db.Exec(ctx, "savepoint probe"); err != nil {
		return nil, db.Wrap(err, "probe")
	}
	_, refused = db.PgConn().Exec(ctx, sql).ReadAll()
	_, err = db.Exec(ctx, "rollback to probe")
	return refused, db.Wrap(err, "probe")
}

// Internal is a relation of TimescaleDB's.
type Internal struct {
	OID  uint32
	Name task.Name
}

// Internals lists the chunks and compressed relations that cannot be told by schema and
// name: the user may have chosen both.
func Internals(ctx context.Context, db *DB) ([]Internal, error) {
	compressed := ""
	if db.columns["compression_settings.compress_relid"] {
		compressed = "union select compress_relid::oid from _timescaledb_catalog.compression_settings"
	}
	rows, err := db.Query(ctx, strings.Replace(internalsSQL, "{compressed}", compressed, 1))
	if err != nil {
		return nil, db.Wrap(err, "list chunks")
	}
	is, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (i Internal, err error) {
		err = r.Scan(&i.OID, &i.Name.Schema, &i.Name.Name)
		return i, err
	})
	return is, db.Wrap(err, "list chunks")
}
