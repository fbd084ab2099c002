package pg

import "testing"

func TestWidens(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"integer", "integer", true},
		{"integer", "bigint", false}, // another binary form
		{"character varying(5)", "character varying(5)", true},
		{"character varying(5)", "character varying(9)", true},
		{"character varying(9)", "character varying(5)", false},
		{"character varying(9)", "character varying", true},
		{"character varying(9)", "text", true},
		{"character varying", "text", true},
		{"character varying", "character varying(9)", false},
		{"text", "character varying", true},
		{"text", "character varying(9)", false},
		{"character(9)", "text", false}, // whose blanks are no part of the value
		{"numeric(9,2)", "numeric", true},
		{"numeric(9,2)", "numeric(12,4)", false}, // 1.50 would become 1.5000
		{"numeric", "numeric(9,2)", false},
		{"timestamp without time zone", "timestamp with time zone", false},
	} {
		if got := Widens(c.from, c.to); got != c.want {
			t.Errorf("%s to %s: %t", c.from, c.to, got)
		}
	}
}
