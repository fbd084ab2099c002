package tsdb

import (
	"fmt"
	"strings"
	"time"

	"bf/lib/pg"
	"bf/lib/task"
)

// literal is the first value of a type whose internal value is at least v, as an SQL
// constant: the planner then knows it, prunes partitions and goes by index, on a
// server without TimescaleDB as well. task.MinBound is -infinity, where there is one.
func literal(typ string, v int64) string {
	text, cast := spelled(typ, v)
	return pg.Literal(text) + "::" + cast
}

// literals is an array of such constants.
func literals(typ string, vs []int64) string {
	texts := make([]string, len(vs))
	var cast string
	for i, v := range vs {
		texts[i], cast = spelled(typ, v)
	}
	return `'{"` + strings.Join(texts, `","`) + `"}'::` + cast + "[]"
}

// spelled is such a constant's text, and its type.
func spelled(typ string, v int64) (text, cast string) {
	at := time.UnixMicro(v).UTC()
	switch typ {
	case "timestamp with time zone":
		return instant(v, at, "15:04:05.999999+00"), "timestamptz"
	case "timestamp without time zone":
		return instant(v, at, "15:04:05.999999"), "timestamp"
	case "date":
		if day := at.Truncate(24 * time.Hour); day != at {
			at = day.Add(24 * time.Hour)
		}
		return instant(v, at, ""), "date"
	case "uuid":
		// As to_uuidv7_boundary does: milliseconds, then what is left in 1/4096 of one.
		v = max(v, 0) // there is nothing before 1970
		ms, us := v/1000, v%1000
		return fmt.Sprintf("%08x-%04x-7%03x-8000-000000000000", ms>>16&0xffffffff, ms&0xffff, us*4096/1000), "uuid"
	}
	return task.FormatBound(v), "bigint" // integers of any width compare with bigint through the same index
}

// The first moment of PostgreSQL's timestamps and dates.
var beginning = time.Date(-4713, 11, 24, 0, 0, 0, 0, time.UTC)

// instant spells a time as PostgreSQL reads it. Go counts the years before the
// first 0, -1, ...; PostgreSQL has no year 0.
func instant(v int64, at time.Time, clock string) string {
	switch {
	case v == task.MaxBound:
		return "infinity"
	case at.Before(beginning):
		return "-infinity"
	}
	year, era := at.Year(), ""
	if year <= 0 {
		year, era = 1-year, " BC"
	}
	day := fmt.Sprintf("%04d-%02d-%02d", year, at.Month(), at.Day())
	if clock != "" {
		day += " " + at.Format(clock)
	}
	return day + era
}

// finite is the condition that a value can be in a chunk: a column of a table may hold
// NULL and -infinity, and TimescaleDB refuses both.
func (d *Dimension) finite() string {
	if isInt(d.RangeType) || d.RangeType == "uuid" {
		return d.expr() + " is not null"
	}
	return d.expr() + " > " + d.bound(task.MinBound)
}
