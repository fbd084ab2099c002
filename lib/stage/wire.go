package stage

import (
	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// A plan travels as NDJSON when the two halves of staging run on two machines: a
// line of kind "plan" that says what the source is, a line per hypertable and per
// continuous aggregate, then a task record per chunk, after a line of kind
// "compressed" where it is. Results of bf-verify among them are passed over. Ids and
// OIDs mean nothing on the other side and are left out.
const (
	kindPlan       = "plan"
	kindHypertable = "hypertable"
	kindAggregate  = "aggregate"
	kindCompressed = "compressed"
	kindResult     = "result" // bf-verify prints them before the plan of what differs
)

type planLine struct {
	V      int    `json:"v"`
	Kind   string `json:"kind"`
	Source Server `json:"source"`
	Again  bool   `json:"again,omitempty"`
}

type aggregateLine struct {
	V    int    `json:"v"`
	Kind string `json:"kind"`
	Aggregate
}

// compressedLine goes before the task of a compressed chunk.
type compressedLine struct {
	V     int       `json:"v"`
	Kind  string    `json:"kind"`
	Chunk task.Name `json:"chunk"`
	Compressed
}

// hypertableLine is a tsdb.Hypertable, whose fields it names.
type hypertableLine struct {
	V           int             `json:"v"`
	Kind        string          `json:"kind"`
	Name        task.Name       `json:"name"`
	View        *task.Name      `json:"view,omitempty"` // of a continuous aggregate
	Dimensions  []dimensionLine `json:"dimensions"`
	Columns     []columnLine    `json:"columns"`
	Compression bool            `json:"compression,omitempty"` // is enabled
	Enforced    []string        `json:"enforced,omitempty"`
}

type dimensionLine struct {
	Column     string    `json:"column"`
	Type       string    `json:"type"`
	Partitions int       `json:"partitions,omitempty"`
	Interval   int64     `json:"interval,string"`
	Calendar   bool      `json:"calendar,omitempty"`
	Func       task.Name `json:"func,omitzero"`
	RangeType  string    `json:"range_type"`
}

type columnLine struct {
	Name          string `json:"name"`
	Type          string `json:"type"`
	NotNull       bool   `json:"not_null,omitempty"`
	Generated     bool   `json:"generated,omitempty"`
	Default       bool   `json:"default,omitempty"`
	Identity      bool   `json:"identity,omitempty"`
	Collation     string `json:"collation,omitempty"`
	Locale        string `json:"locale,omitempty"`
	LocaleVersion string `json:"locale_version,omitempty"`
	Binary        bool   `json:"binary"`
	Hash          string `json:"hash"`
}

func toLine(h *tsdb.Hypertable) hypertableLine {
	l := hypertableLine{V: task.Version, Kind: kindHypertable, Name: h.Name, View: h.View,
		Compression: h.CompressionEnabled, Enforced: h.Enforced}
	for _, d := range h.Dimensions {
		l.Dimensions = append(l.Dimensions, dimensionLine(d))
	}
	for _, c := range h.Columns {
		l.Columns = append(l.Columns, columnLine{c.Name, c.Type, c.NotNull, c.Generated, c.Default, c.Identity,
			c.Collation, c.Order.Locale, c.Order.Version, c.Binary, c.Hash})
	}
	return l
}

func (l hypertableLine) hypertable() *tsdb.Hypertable {
	h := &tsdb.Hypertable{Name: l.Name, View: l.View, CompressionEnabled: l.Compression, Enforced: l.Enforced}
	for _, d := range l.Dimensions {
		h.Dimensions = append(h.Dimensions, tsdb.Dimension(d))
	}
	for _, c := range l.Columns {
		h.Columns = append(h.Columns, pg.Column{Name: c.Name, Type: c.Type, NotNull: c.NotNull, Generated: c.Generated,
			Default: c.Default, Identity: c.Identity, Collation: c.Collation, Binary: c.Binary, Hash: c.Hash,
			Order: pg.Order{Locale: c.Locale, Version: c.LocaleVersion}})
	}
	return h
}
