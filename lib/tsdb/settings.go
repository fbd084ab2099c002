package tsdb

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

//go:embed settings_legacy.sql
var settingsLegacySQL string

// Settings are the compression settings of a hypertable or of a chunk.
type Settings struct {
	SegmentBy  []string        `json:"segment_by"`
	OrderBy    []string        `json:"order_by"`
	Desc       []bool          `json:"desc"`
	NullsFirst []bool          `json:"nulls_first"`
	Index      json.RawMessage `json:"index,omitempty"` // sparse indexes, 2.22 and newer
}

// SameLayout reports whether two settings segment and order rows alike.
func (s *Settings) SameLayout(o *Settings) bool {
	return slices.Equal(s.SegmentBy, o.SegmentBy) && slices.Equal(s.OrderBy, o.OrderBy) &&
		slices.Equal(s.Desc, o.Desc) && slices.Equal(s.NullsFirst, o.NullsFirst)
}

// Same reports whether two settings are the same to the byte.
func (s *Settings) Same(o *Settings) bool {
	return s.SameLayout(o) && bytes.Equal(s.Index, o.Index) &&
		(s.SegmentBy == nil) == (o.SegmentBy == nil) && (s.OrderBy == nil) == (o.OrderBy == nil)
}

// SettingsPerChunk reports whether chunks keep the settings they were compressed with
// (2.14 and newer). Before, the hypertable's hold for all of its chunks, and
// compressed relations are children of one table.
func (db *DB) SettingsPerChunk() bool { return db.columns["compression_settings.relid"] }

// ListsSparseIndexes reports whether the settings of this server name sparse indexes
// (2.22 and newer). Older servers look metadata columns up by name.
func (db *DB) ListsSparseIndexes() bool { return db.columns["compression_settings.index"] }

// Settings returns the settings that a compressed chunk has.
func (c *Chunk) Settings(ctx context.Context, db *DB) (s *Settings, err error) {
	var ask pgx.Batch
	askSettings(db, &ask, c, &s)
	return s, db.Wrap(db.SendBatch(ctx, &ask).Close(), "compression settings")
}

func askSettings(db *DB, ask *pgx.Batch, c *Chunk, to **Settings) {
	rel := c.OID
	if !db.columns["compression_settings.compress_relid"] {
		rel = c.RelationOID
	}
	queueSettings(db, ask, rel, c.Hypertable, to)
}

// HypertableSettings returns the settings for chunks to be compressed; nil for
// none.
func HypertableSettings(ctx context.Context, db *DB, h *Hypertable) (s *Settings, err error) {
	var ask pgx.Batch
	queueSettings(db, &ask, h.OID, h.ID, &s)
	return s, db.Wrap(db.SendBatch(ctx, &ask).Close(), "compression settings")
}

// queueSettings asks for the settings of a relation of the hypertable; nil for none.
func queueSettings(db *DB, ask *pgx.Batch, rel uint32, hypertable int32, to **Settings) {
	sql, arg := settingsLegacySQL, any(hypertable)
	if db.SettingsPerChunk() {
		index := "null"
		if db.ListsSparseIndexes() {
			index = "index::text"
		}
		sql = "select segmentby::text[], orderby::text[], orderby_desc, orderby_nullsfirst, " + index +
			" from _timescaledb_catalog.compression_settings where relid = $1::oid"
		arg = rel
	}
	ask.Queue(sql, arg).QueryRow(func(row pgx.Row) error {
		var s Settings
		var index *string
		err := row.Scan(&s.SegmentBy, &s.OrderBy, &s.Desc, &s.NullsFirst, &index)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if index != nil {
			s.Index = json.RawMessage(*index)
		}
		*to = &s
		return err
	})
}

// SQL is the option list that gives a hypertable these settings; of nil, the server's
// defaults. Servers that keep a list of sparse indexes get that as well, unless it is
// empty: an empty list corrupts the settings (seen on 2.28 to 2.30).
func (s *Settings) SQL(db *DB, sparse []SparseIndex) string {
	if s == nil {
		return "timescaledb.compress"
	}
	var order []string
	for i, c := range s.OrderBy {
		o := pg.Ident(c) + " asc"
		if s.Desc[i] {
			o = pg.Ident(c) + " desc"
		}
		if s.NullsFirst[i] {
			o += " nulls first"
		} else {
			o += " nulls last"
		}
		order = append(order, o)
	}
	sql := "timescaledb.compress"
	if s.SegmentBy != nil || !db.ListsSparseIndexes() {
		// ≥ 2.22: "no segments" and "not said" are two things.
		sql += ", timescaledb.compress_segmentby = " + pg.Literal(pg.Idents(s.SegmentBy))
	}
	if len(order) > 0 {
		sql += ", timescaledb.compress_orderby = " + pg.Literal(strings.Join(order, ", "))
	}
	if db.ListsSparseIndexes() && len(sparse) > 0 {
		var list []string
		for _, i := range explicit(sparse) {
			list = append(list, i.Kind+"("+pg.Idents(i.Columns)+")")
		}
		sql += ", timescaledb.compress_index = " + pg.Literal(strings.Join(list, ","))
	}
	return sql
}
