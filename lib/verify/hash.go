package verify

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

//go:embed equality.sql
var equalityTemplate string

var equalitySQL = pg.WithTypeParts(equalityTemplate)

// What of a column to hash with the method ByValue, beside tsdb's: values that
// the type's = calls equal have to hash alike. See equality.sql.
const (
	hashScale     = "scale"     // a numeric without trailing zeros
	hashJustified = "justified" // an interval in months of 30 days and days of 24 hours
	hashNumbers   = "numbers"   // itself, and its text with the numbers in it without trailing zeros
)

func knowsHash(how string) bool {
	return pg.KnowsHash(how) || slices.Contains([]string{hashScale, hashJustified, hashNumbers}, how)
}

// HashName names how a summary's hashes are made. Hashes of different names say
// nothing about each other. Version 1, unnamed, added the rows' hashes without
// mixing them: it did not see values that were exchanged between rows.
const HashName = "rows-2"

// seed starts every hash. It is neither 0 nor 1: NULL hashes to 0, floating
// point zero to the seed and numeric zero to the seed minus 1.
const seed = 6364136223846793005

// hash is an expression for the 64-bit hash of some expressions. PostgreSQL
// folds a record's columns as 31·h + hash(column): a sum of such hashes over
// rows is a sum per column, the same whatever values stand together in a row.
// So the hash is mixed before anybody adds it up. It is the seed of the mixing
// function and not its argument, of which only 32 bits would count.
func (s *side) hash(exprs []string) string {
	if s.db.Postgres < 140000 {
		return hash(exprs, foldedRecord)
	}
	return hash(exprs, record)
}

func hash(exprs []string, record func(exprs []string, seed string) string) string {
	// A ROW has at most 1664 columns. The hash of the first ones is the seed of
	// the next ones; true is there because NULLs alone would lose the seed.
	const most = 1600
	h := strconv.Itoa(seed)
	for i := 0; i < len(exprs); i += most {
		part := exprs[i:min(i+most, len(exprs))]
		if i > 0 {
			part = append([]string{"true"}, part...)
		}
		h = record(part, h)
	}
	return "hashint8extended(0, " + h + ")"
}

func record(exprs []string, seed string) string {
	return "hash_record_extended(row(" + strings.Join(exprs, ", ") + "), " + seed + ")"
}

// foldedRecord has the value of record where hash_record_extended is missing
// (PostgreSQL 13). An array of one element hashes to 31 + hash(element), and to 31 if
// that is NULL, whose hash is 0. The rest is the sum of a record, modulo 2⁶⁴: in
// numeric, as bigint fails where it overflows. That takes a multiple of the time. It
// is not for expressions that are arrays or records themselves: see equality.sql.
func foldedRecord(exprs []string, seed string) string {
	from := ""
	if _, err := strconv.Atoi(seed); err != nil { // computed once, not once for each of the expressions
		const column = `"bf: hash of the columns before"` // of no table, whose column it would hide
		from = fmt.Sprintf(" from (select %s as %s offset 0) before", seed, column)
		seed = column
	}
	terms := make([]string, len(exprs))
	factor, excess := uint64(1), uint64(0)
	for i := len(exprs) - 1; i >= 0; i-- {
		terms[i] = fmt.Sprintf("hash_array_extended(array[%s], %s)::numeric * %d", exprs[i], seed, factor)
		excess += 31 * factor
		factor *= 31
	}
	// A remainder has the sign of what is divided. So twice, and between them up by
	// 2⁶⁴ + 2⁶³; in the end down by 2⁶³.
	sum := fmt.Sprintf("(mod(mod(%s - %d, 18446744073709551616) + 27670116110564327424, 18446744073709551616)"+
		" - 9223372036854775808)::bigint", strings.Join(terms, " + "), excess)
	if from != "" {
		return "(select " + sum + from + ")"
	}
	return sum
}

// sumOf is an aggregate for a multiset of rows, or of batches, of which each is
// hashed: whatever their order, it tells two different ones apart, but for a
// chance of 2⁻⁶⁴.
func (s *side) sumOf(exprs []string) string { return "coalesce(sum(" + s.hash(exprs) + "), 0)::text" }

// hashedRow are the expressions of a row that are hashed.
func (s *side) hashedRow(cols []Column) (exprs []string) {
	for _, c := range cols {
		exprs = append(exprs, s.hashed(c)...)
	}
	return exprs
}

// hashed is what of a column goes into the hash. Text is hashed in UTF-8,
// whatever the encoding of the database.
func (s *side) hashed(c Column) []string {
	q := pg.Ident(c.Name)
	text := func(e string) []string {
		e = "(" + e + `::text collate "C")`
		if !s.utf8() {
			e = "convert_to(" + e + ", 'UTF8')"
		}
		return []string{e}
	}
	switch {
	case c.How == pg.HashFloat:
		return []string{q, "case when " + q + " = 0 then float8send(" + q + ") end"}
	case c.How == pg.HashBigint:
		return []string{q, q + " >> 32"}
	case c.How == hashScale:
		return []string{"numeric_send(trim_scale(" + q + "))"}
	case c.How == hashJustified:
		return []string{"interval_send(justify_interval(" + q + "))"}
	case c.How == hashNumbers:
		return append([]string{q}, text(trimmed("row("+q+")::text"))...)
	case c.How == pg.HashText:
		return text(q)
	case c.How == pg.HashRecord:
		return text("row(" + q + ")")
	case pg.Sends(c.How):
		return []string{c.How + "(" + q + ")"}
	case isText(c.Type) && !s.utf8():
		return text(q)
	}
	return []string{q}
}

// trimmed is a text whose numbers have no trailing zeros, and no sign of zero.
func trimmed(text string) string {
	for _, r := range [][2]string{{`\.0+(?![0-9])`, ""}, {`(\.[0-9]*[1-9])0+(?![0-9])`, `\1`}, {`-0(?![0-9.])`, "0"}} {
		text = "regexp_replace(" + text + ", '" + r[0] + "', '" + r[1] + "', 'g')"
	}
	return "(" + text + ")"
}

// byEquality are the side's columns, hashed so that values which their type's =
// calls equal hash alike, as far as such a hash exists.
func (s *side) byEquality(ctx context.Context, cols []Column) ([]Column, error) {
	rows, err := s.db.Query(ctx, equalitySQL, []uint32{s.h.OID})
	if err != nil {
		return nil, s.db.Wrap(err, "columns of %s", s.h.Name)
	}
	cols = slices.Clone(cols)
	var name, how string
	_, err = pgx.ForEachRow(rows, []any{&name, &how}, func() error {
		if i := slices.IndexFunc(cols, func(c Column) bool { return c.Name == name }); i >= 0 {
			cols[i].How = how
		}
		return nil
	})
	return cols, s.db.Wrap(err, "columns of %s", s.h.Name)
}

// bothByEquality is byEquality for two sides.
func bothByEquality(ctx context.Context, from, to *side, cols []Column) ([]Column, error) {
	a, b, err := both(ctx, from, to, func(ctx context.Context, s *side) ([]Column, error) {
		return s.byEquality(ctx, cols)
	})
	if err != nil {
		return nil, err
	}
	for i := range a {
		if a[i].How != b[i].How { // not the same type
			a[i].How = cols[i].How
		}
	}
	return a, nil
}
