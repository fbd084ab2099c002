package tsdb

import (
	"encoding/json"
	"fmt"
	"slices"
)

// SparseIndex is what a metadata column knows of the columns of its batch.
type SparseIndex struct {
	Kind    string   `json:"kind"` // minmax, firstlast, bloom, or stale for a bloom filter of an older hash
	Columns []string `json:"columns"`
}

// The kinds of sparse indexes, as TimescaleDB spells them.
const (
	MinMax    = "minmax"
	FirstLast = "firstlast"
	Bloom     = "bloom"
	stale     = "stale"
)

// indexEntry is an element of Settings.Index. Source says who asked for the
// index: config is the user.
type indexEntry struct {
	Type   string       `json:"type"`
	Column stringOrList `json:"column"`
	Source string       `json:"source"`
}

// stringOrList is a JSON string or an array of them.
type stringOrList []string

func (c *stringOrList) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(c))
	}
	*c = make([]string, 1)
	return json.Unmarshal(b, &(*c)[0])
}

// Sparse returns the sparse indexes of the settings; configured those alone
// that the user asked for.
func (s *Settings) Sparse(configured bool) ([]SparseIndex, error) {
	if len(s.Index) == 0 {
		return nil, nil
	}
	var entries []indexEntry
	if err := json.Unmarshal(s.Index, &entries); err != nil {
		return nil, fmt.Errorf("sparse indexes of the compression settings: %w", err)
	}
	var out []SparseIndex
	for _, e := range entries {
		if !configured || e.Source == "config" {
			out = append(out, SparseIndex{e.Type, e.Column})
		}
	}
	return out, nil
}

// Sparse returns the sparse indexes that the relation has columns for, without
// those of the given columns.
func (r *Relation) Sparse(without map[string]bool) (out []SparseIndex) {
	for _, c := range r.Columns {
		if c.Index != nil && !without[c.Name] && !slices.ContainsFunc(out, c.Index.equal) {
			out = append(out, *c.Index)
		}
	}
	return out
}

func (i *SparseIndex) equal(o SparseIndex) bool {
	return i.Kind == o.Kind && slices.Equal(i.Columns, o.Columns)
}

// explicit leaves out what another index implies: firstlast has minmax, and
// settings may name that as well or not.
func explicit(sparse []SparseIndex) []SparseIndex {
	return slices.DeleteFunc(slices.Clone(sparse), func(i SparseIndex) bool {
		return i.Kind == MinMax && slices.ContainsFunc(sparse, (&SparseIndex{FirstLast, i.Columns}).equal)
	})
}

// SameSparse reports whether two sets of sparse indexes are equal.
func SameSparse(a, b []SparseIndex) bool {
	a, b = explicit(a), explicit(b)
	contains := func(set []SparseIndex) func(SparseIndex) bool {
		return func(x SparseIndex) bool { return !slices.ContainsFunc(set, x.equal) }
	}
	return !slices.ContainsFunc(a, contains(b)) && !slices.ContainsFunc(b, contains(a))
}
