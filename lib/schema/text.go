package schema

import (
	"fmt"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
)

// qualified reads a name as pg_dump writes it at the beginning of s: schema and
// name, each quoted or not.
func qualified(s string) (n task.Name, rest string, ok bool) {
	n.Schema, rest, ok = identifier(s)
	if !ok || !strings.HasPrefix(rest, ".") {
		return n, s, false
	}
	n.Name, rest, ok = identifier(rest[1:])
	return n, rest, ok
}

// identifier reads one identifier at the beginning of s.
func identifier(s string) (name, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, ". \n\t;(,=")
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:], i > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '"':
			b.WriteByte(s[i])
		case strings.HasPrefix(s[i:], `""`):
			b.WriteByte('"')
			i++
		default:
			return b.String(), s[i+1:], true
		}
	}
	return "", s, false
}

// quote quotes a name where it has to be, as people and pg_dump write it.
func quote(n task.Name) string { return word(n.Schema) + "." + word(n.Name) }

func word(s string) string {
	plain := s != "" && s[0] != '$' && (s[0] < '0' || s[0] > '9')
	for _, c := range s {
		plain = plain && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_')
	}
	if plain && !reserved[s] {
		return s
	}
	return pg.Ident(s)
}

// reserved are PostgreSQL's keywords that no table or schema may have as a name
// without quotes.
var reserved = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`all analyse analyze ` +
		`and any array as asc asymmetric authorization between bigint binary bit boolean both
		case cast char character check coalesce collate collation column concurrently constraint create cross
		current_catalog current_date current_role current_schema current_time current_timestamp current_user dec
		decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign
		freeze from full grant greatest group grouping having ilike in initially inner inout int integer
		intersect interval into is isnull join json_array json_arrayagg json_exists json_object json_objectagg
		json_query json_scalar json_serialize json_table json_value lateral leading least left like limit
		localtime localtimestamp merge_action national natural nchar none normalize not notnull null nullif
		numeric offset on only or order out outer overlaps overlay placing position precision primary real
		references returning right row select session_user setof similar smallint some substring symmetric
		system_user table tablesample then time timestamp to trailing treat trim true union unique user using
		values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists
		xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable`) {
		m[w] = true
	}
	return m
}()

// relation is a string constant that names a relation, for a regclass.
func relation(n task.Name) string { return pg.Literal(quote(n)) }

// units are those of an interval, in microseconds.
var units = []struct {
	name  string
	width int64
}{{"day", 24 * 3600_000_000}, {"hour", 3600_000_000}, {"minute", 60_000_000}, {"second", 1_000_000},
	{"millisecond", 1000}, {"microsecond", 1}}

// interval is SQL for a number of microseconds, as people write it.
func interval(us int64) string {
	for _, u := range units {
		if us%u.width == 0 && us != 0 {
			n := us / u.width
			if n == 1 {
				return fmt.Sprintf("interval '1 %s'", u.name)
			}
			return fmt.Sprintf("interval '%d %ss'", n, u.name)
		}
	}
	return "interval '0'"
}
