package tsdb

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

//go:embed aggregates_on.sql
var aggregatesOnSQL string

// AggregateImage is what a continuous aggregate of the source holds of the buckets of
// a task's range, for the target to compare: where its own holds the same, the rows of
// the chunk are no reason to compute them again.
type AggregateImage struct {
	View       task.Name `json:"view"`
	Definition string    `json:"definition"` // see Spelling
	Watermark  int64     `json:"watermark,string"`
	// Spans are those of the buckets that no refresh of the source would compute.
	Spans []BucketImage `json:"spans"`
}

// BucketImage is what is in the buckets of a span.
type BucketImage struct {
	From  int64  `json:"from,string"`
	Until int64  `json:"until,string"`
	Rows  int64  `json:"rows"`
	Hash  string `json:"hash"`
}

// ChunkImage is the extent of a chunk on the primary dimension.
type ChunkImage struct {
	Chunk task.Name `json:"chunk"`
	From  int64     `json:"from,string"`
	Until int64     `json:"until,string"`
}

// Descendant is a continuous aggregate on a hypertable, or on another descendant: that
// one's real-time view shows the hypertable's rows, so what it is computed from changes
// with them.
type Descendant struct {
	*Aggregate
	On         *Descendant // nil for the hypertable
	joins      bool        // its query reads other relations as well
	unreadable bool        // for the role
}

// Descendants lists the aggregates on a hypertable and those on them, parents first.
func Descendants(ctx context.Context, db *DB, h *Hypertable) ([]*Descendant, error) {
	rows, err := db.Query(ctx, aggregatesOnSQL, h.ID)
	if err != nil {
		return nil, db.Wrap(err, "aggregates of %s", h.Label())
	}
	byID := map[int32]*Descendant{}
	var hs []*Hypertable
	ids, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (id int32, err error) {
		var d Descendant
		var on int32
		err = r.Scan(&id, &on, &d.joins, &d.unreadable)
		byID[id], d.On = &d, byID[on]
		return id, err
	})
	for _, id := range ids {
		var a *Hypertable
		if err == nil {
			a, err = db.Hypertable(ctx, id)
		}
		if a != nil {
			hs = append(hs, a)
		}
	}
	if err != nil {
		return nil, db.Wrap(err, "aggregates of %s", h.Label())
	}
	as, err := db.Aggregates(ctx, hs)
	var all []*Descendant
	for _, a := range as {
		d := byID[a.ID]
		d.Aggregate = a
		all = append(all, d)
	}
	return all, err
}

// Comparable reports whether equal rows on both sides mean equal buckets. ≤ 2.22:
// what is logged for shifted buckets is not what they are computed from.
func (d *Descendant) Comparable() bool {
	return d.Finalized && !d.Whole && !d.Shifted && !d.joins && !d.unreadable
}

// Cover is the span of the whole buckets that a span touches.
func (a *Aggregate) Cover(ctx context.Context, db *DB, s Span) (Span, error) {
	b, err := a.Buckets(ctx, db, s.From, s.Until)
	if err != nil {
		return s, err
	}
	if b[1] != s.Until {
		w, err := a.Width(ctx, db)
		if err != nil {
			return s, err
		}
		ends, err := a.Ends(ctx, db, w, b[1:])
		if err != nil {
			return s, err
		}
		s.Until = ends[0]
	}
	s.From = b[0]
	return s, nil
}

// Covers are the spans of the whole buckets of descendants that change with the rows of a
// span: those of the hypertable's, or of the whole buckets of what they are on.
func Covers(ctx context.Context, db *DB, all []*Descendant, s Span) ([]Span, error) {
	covers := make([]Span, len(all))
	byOn := map[*Descendant]Span{nil: s}
	for i, d := range all {
		c, err := d.Cover(ctx, db, byOn[d.On])
		if err != nil {
			return nil, err
		}
		covers[i], byOn[d] = c, c
	}
	return covers, nil
}

// CoverAll covers each of some spans within another, and merges them.
func (a *Aggregate) CoverAll(ctx context.Context, db *DB, spans []Span, in Span) (all []Span, err error) {
	for _, s := range Within(Merge(spans), []Span{in}) {
		c, err := a.Cover(ctx, db, s)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return Merge(all), nil
}

// Image reads what the aggregate holds of the buckets in a span, which is of whole
// ones, leaving out those that a refresh would compute.
func (a *Aggregate) Image(ctx context.Context, db *DB, s Span) (AggregateImage, error) {
	img := AggregateImage{View: *a.View, Definition: Spelling(a.Definition), Watermark: a.Watermark}
	invalid, err := a.Invalid(ctx, db)
	if err == nil {
		invalid, err = a.CoverAll(ctx, db, invalid, s)
	}
	if err != nil {
		return img, err
	}
	for _, clean := range Without([]Span{s}, invalid) {
		b, err := a.Sum(ctx, db, clean)
		if err != nil {
			return img, err
		}
		img.Spans = append(img.Spans, b)
	}
	return img, nil
}

// Sum counts and hashes the buckets in a span: rows of equal text hash alike, whatever
// the version of the server.
func (a *Aggregate) Sum(ctx context.Context, db *DB, s Span) (BucketImage, error) {
	b := BucketImage{From: s.From, Until: s.Until}
	cond, err := a.Condition(s)
	if err != nil {
		return b, err
	}
	var names []string
	for _, c := range a.Copied() {
		names = append(names, c.Name)
	}
	err = Total(ctx, db, `count(*), coalesce(sum(hashtextextended(r::text collate "C", 0)), 0)::text`,
		fmt.Sprintf("(select %s from %s where %s) r", pg.Idents(names), pg.Ident(a.Name.Schema, a.Name.Name), cond),
		&b.Rows, &b.Hash)
	return b, db.Wrap(err, "buckets of %s", a.Label())
}

var (
	qualifier = regexp.MustCompile(`("[^"]*"|\w+)\.`)
	blanks    = regexp.MustCompile(`\s+`)
)

// Spelling is a definition without what versions of PostgreSQL spell differently: the
// names of tables before those of columns, and blanks.
func Spelling(definition string) string {
	return strings.TrimSpace(blanks.ReplaceAllString(qualifier.ReplaceAllString(definition, ""), " "))
}
