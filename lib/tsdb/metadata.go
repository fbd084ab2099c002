package tsdb

import (
	"context"
	"crypto/md5" // of TimescaleDB's names
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"bf/lib/pg"
)

// The names of metadata columns are the server's. It cuts those of the second
// generation (_ts_meta_v2_...) after 39 bytes of the user's column, even within a
// character: a database of UTF8 hands out such a name, and refuses it in a statement
// (22021). So relations that have one are not built from a description, and no statement
// names their columns; see Broken, Numbered.

// metaName is the name of a metadata column of the second generation. A long one,
// or one of several columns, is told apart by a hash. encoded is a column's name in
// the encoding of the database, and narrow says that it has one byte for a
// character.
func metaName(kind string, narrow bool, encoded func(string) string, columns ...string) string {
	var bytes []string
	for _, c := range columns {
		bytes = append(bytes, encoded(c))
	}
	name, long := strings.Join(columns, "_"), len(strings.Join(bytes, "_")) > 39
	if long || len(columns) > 1 {
		sum := md5.Sum([]byte(strings.Join(bytes, "\x00")))
		if cut := min(39, len(name)); !narrow {
			name = name[:cut]
		} else if runes := []rune(name); len(runes) > 39 {
			name = string(runes[:39])
		}
		name = fmt.Sprintf("%x_%s", sum[:2], name)
	}
	return metaPrefix + "v2_" + kind + "_" + name
}

// metaNames returns the names that metadata columns of the relation can have, and
// what these hold.
func (r *Relation) metaNames(ctx context.Context, db *DB, h *Hypertable) (map[string]*SparseIndex, error) {
	if db.bloom == nil {
		const prefix = "select coalesce(current_setting('timescaledb.bloom1_column_prefix', true), 'bloom1')"
		if err := db.QueryRow(ctx, prefix).Scan(&db.bloom); err != nil {
			return nil, db.Wrap(err, "probe")
		}
	}
	prefix := *db.bloom
	encoded, err := encoded(ctx, db, r.Encoding, h.Columns)
	if err != nil {
		return nil, err
	}
	named := func(kind string, columns ...string) string {
		return metaName(kind, encoded != nil, func(c string) string {
			if e, ok := encoded[c]; ok {
				return e
			}
			return c
		}, columns...)
	}
	names := map[string]*SparseIndex{}
	for _, c := range h.Columns {
		for _, kind := range []struct{ name, kind string }{
			{"min", MinMax}, {"max", MinMax}, {"first", FirstLast}, {"last", FirstLast}, {"bloom1", Bloom},
			{"bloomh", Bloom}} {
			k := kind.kind
			if k == Bloom && kind.name != prefix {
				k = stale
			}
			names[named(kind.name, c.Name)] = &SparseIndex{k, []string{c.Name}}
		}
	}
	sparse, err := r.Settings.Sparse(false)
	if err != nil {
		return nil, err
	}
	for _, s := range sparse {
		if s.Kind == Bloom && len(s.Columns) > 1 {
			names[named(prefix, s.Columns...)] = &s
		}
	}
	for i, o := range r.Settings.OrderBy {
		for _, m := range []string{"min_", "max_"} {
			names[metaPrefix+m+strconv.Itoa(i+1)] = &SparseIndex{MinMax, []string{o}}
		}
	}
	return names, nil
}

// encoded returns the names of columns in a database's encoding of one byte for a
// character; nil where they come as they are stored.
func encoded(ctx context.Context, db *DB, encoding string, columns []pg.Column) (map[string]string, error) {
	if encoding == "UTF8" || encoding == "SQL_ASCII" {
		return nil, nil
	}
	names, stored := make([]string, len(columns)), [][]byte(nil)
	for i, c := range columns {
		names[i] = c.Name
	}
	err := db.QueryRow(ctx, "select array(select convert_to(n, $2) from unnest($1::text[]) with ordinality u(n, i) "+
		"order by i)", names, encoding).Scan(&stored)
	if err != nil {
		return nil, db.Wrap(err, "names of columns")
	}
	encoded := map[string]string{}
	for i, name := range names {
		encoded[name] = string(stored[i])
	}
	return encoded, nil
}

// attribute finds out what each metadata column holds: by its name, which is
// the only thing that says so on servers before 2.22, and for bloom filters
// over several columns by the settings.
func (r *Relation) attribute(ctx context.Context, db *DB, h *Hypertable) (why string, err error) {
	if _, err := r.Settings.Sparse(false); err != nil {
		return err.Error(), nil
	}
	names, err := r.metaNames(ctx, db, h)
	if err != nil {
		return "", err
	}
	for i := range r.Columns {
		c := &r.Columns[i]
		if !strings.HasPrefix(c.Name, metaPrefix) || c.Name == metaPrefix+"count" ||
			c.Name == metaPrefix+"sequence_num" {
			continue
		}
		c.Index = names[c.Name]
		if c.Index == nil && c.Type == BloomType {
			c.Index = &SparseIndex{Kind: stale} // of several columns, by an older hash
		}
		if c.Index == nil {
			return fmt.Sprintf("metadata column %q of the compressed relation is not known to this bf", c.Name), nil
		}
	}
	return "", nil
}

// Broken returns a user's column for which the relation has a metadata column
// whose name the server has cut within a character; "" for none.
func (r *Relation) Broken() string {
	for _, c := range r.Columns {
		if !utf8.ValidString(c.Name) {
			if c.Index != nil && len(c.Index.Columns) > 0 {
				return c.Index.Columns[0]
			}
			return strings.ToValidUTF8(c.Name, "")
		}
	}
	return ""
}

// Numbered is the relation, which has a quoted name, in a FROM clause that gives
// its columns the names of NumberOf.
func (r *Relation) Numbered(rel string) string {
	names := make([]string, len(r.Columns))
	for i := range names {
		names[i] = fmt.Sprint("c", i+1)
	}
	return "only " + rel + " as r(" + strings.Join(names, ", ") + ")"
}

// NumberOf returns what a column is called there.
func (r *Relation) NumberOf(column string) string {
	return fmt.Sprint("c", 1+slices.IndexFunc(r.Columns, func(c RelationColumn) bool { return c.Name == column }))
}
