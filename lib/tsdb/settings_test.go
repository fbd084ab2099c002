package tsdb

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMetaName(t *testing.T) {
	for _, c := range []struct {
		kind    string
		columns []string
		want    string
	}{
		{"min", []string{"ts"}, "_ts_meta_v2_min_ts"},
		{"bloomh", []string{"t", "u"}, "_ts_meta_v2_bloomh_6043_t_u"}, // as 2.28.3 calls it
		{"max", []string{strings.Repeat("x", 39)}, "_ts_meta_v2_max_" + strings.Repeat("x", 39)},
		{"max", []string{strings.Repeat("x", 40)}, "_ts_meta_v2_max_2e5a_" + strings.Repeat("x", 39)},
	} {
		if got := metaName(c.kind, false, strings.Clone, c.columns...); got != c.want {
			t.Errorf("metaName(%s, %v) = %s, want %s", c.kind, c.columns, got, c.want)
		}
	}
}

func TestAtLeast(t *testing.T) {
	for _, c := range []struct {
		version, other string
		want           bool
	}{
		{"2.19.3", "2.19.3", true}, {"2.19.3", "2.9.0", true}, {"2.9.0", "2.19.3", false},
		{"2.30.0-dev", "2.29.2", true}, {"", "2.11.0", false}, {"3.0", "2.99.9", true},
	} {
		if AtLeast(c.version, c.other) != c.want {
			t.Errorf("AtLeast(%q, %q) = %v", c.version, c.other, !c.want)
		}
	}
}

func TestSettingsSQL(t *testing.T) {
	old, recent := &DB{columns: map[string]bool{}}, &DB{columns: map[string]bool{"compression_settings.index": true}}
	s := &Settings{SegmentBy: []string{`d"e'v`}, OrderBy: []string{"ts", "i"}, Desc: []bool{true, false},
		NullsFirst: []bool{true, false}}
	sparse := []SparseIndex{{MinMax, []string{"ts"}}, {FirstLast, []string{"ts"}}, {Bloom, []string{"t", "u"}}}
	base := `timescaledb.compress, timescaledb.compress_segmentby = '"d""e''v"', ` +
		`timescaledb.compress_orderby = '"ts" desc nulls first, "i" asc nulls last'`
	for _, c := range []struct {
		db     *DB
		s      *Settings
		sparse []SparseIndex
		want   string
	}{
		{old, s, sparse, base},
		{recent, s, nil, base},
		{recent, s, sparse, base + `, timescaledb.compress_index = 'firstlast("ts"),bloom("t", "u")'`},
		{old, &Settings{}, nil, "timescaledb.compress, timescaledb.compress_segmentby = ''"},
		{recent, &Settings{}, nil, "timescaledb.compress"},
	} {
		if got := c.s.SQL(c.db, c.sparse); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestSparse(t *testing.T) {
	s := Settings{Index: json.RawMessage(`[{"type": "bloom", "column": ["t", "u"], "source": "default"}, {"type": ` +
		`"minmax", "column": "ts", "source": "orderby"}, {"type": "firstlast", "column": "ts", "source": "config"}]`)}
	all, err := s.Sparse(false)
	if err != nil || !SameSparse(all, []SparseIndex{{FirstLast, []string{"ts"}}, {Bloom, []string{"t", "u"}}}) {
		t.Error(all, err)
	}
	if SameSparse(all, all[1:]) || SameSparse(all, append(all[:2:2], SparseIndex{Bloom, []string{"u", "t"}})) {
		t.Error("different sets are the same")
	}
	if own, err := s.Sparse(true); err != nil || len(own) != 1 || own[0].Kind != FirstLast {
		t.Error(own, err)
	}
	if _, err := (&Settings{Index: json.RawMessage(`{}`)}).Sparse(false); err == nil {
		t.Error("no error for what is no list")
	}
}
